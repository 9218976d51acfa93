/** @file Readies a clone, with nothing but Node and npm: installs the locked dependencies if they differ, then builds. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { build } from "./build.js";

const root = new URL("../", import.meta.url);

/** @throws Error when the install or the build fails */
export function setup() {
  if (!isInstalled()) install();
  build();
}

/** Installs what package-lock.json names. @throws Error when npm fails */
export function install() {
  console.log("Installing dependencies (npm ci) …");
  const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const npm = process.env["npm_execpath"];
  const options = { cwd: root, stdio: "inherit" };
  const { status } = npm?.endsWith(".js")
    ? spawnSync(process.execPath, [npm, ...args], options)
    : spawnSync("npm", args, { ...options, shell: process.platform === "win32" });
  if (status !== 0) throw new Error(`npm ci exited with ${status}`);
}

/** Whether node_modules holds what package-lock.json names; npm writes its own lock there once it is done. */
export function isInstalled() {
  const installedLock = new URL("node_modules/.package-lock.json", root);
  if (!existsSync(installedLock)) return false;
  const wanted = packagesOf(new URL("package-lock.json", root));
  const installed = packagesOf(installedLock);
  return Object.entries(wanted).every(
    ([path, { version, integrity, optional }]) =>
      path === "" ||
      (optional && !installed[path]) || // built for another platform
      (installed[path]?.version === version && installed[path]?.integrity === integrity),
  );
}

function packagesOf(lock) {
  return JSON.parse(readFileSync(lock, "utf8")).packages;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    setup();
  } catch (error) {
    console.error(`Setup failed: ${error.message}`);
    process.exitCode = 1;
  }
}
