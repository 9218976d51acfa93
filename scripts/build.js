/** @file src → dist with tsc, skipped while nothing in src changed since the last build that succeeded. */
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("../", import.meta.url));
const src = join(root, "src");
const dist = join(root, "dist");
const stamp = join(dist, ".built");

/** @throws Error when a source file does not compile */
export function build() {
  if (isUpToDate()) return;
  console.log("Building (tsc) …");
  const sources = readdirSync(src, { recursive: true, encoding: "utf8" });
  removeOrphans(new Set(sources));
  const startedAt = Date.now();
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const { status } = spawnSync(process.execPath, [tsc, "-p", "tsconfig.build.json"], {
    cwd: root,
    stdio: "inherit",
  });
  if (status !== 0) throw new Error("src does not compile (see above)");
  copyAssets(sources);
  writeFileSync(stamp, `${startedAt}\n`);
}

/** Compares with when the last build began, so a file saved while it ran is built again. */
function isUpToDate() {
  if (!existsSync(stamp)) return false;
  return Number(readFileSync(stamp, "utf8")) > newestChange();
}

function newestChange() {
  // folders count too: their time changes when a file in them is removed
  const inSrc = readdirSync(src, { recursive: true, encoding: "utf8" }).map((path) =>
    join(src, path),
  );
  const settings = ["tsconfig.json", "tsconfig.build.json", "package-lock.json"];
  const paths = [src, ...inSrc, ...settings.map((path) => join(root, path))];
  return Math.max(...paths.map((path) => statSync(path).mtimeMs));
}

/** Removes what came from files that src no longer holds. */
function removeOrphans(sources) {
  if (!existsSync(dist)) return;
  for (const path of readdirSync(dist, { recursive: true, encoding: "utf8" })) {
    if (path.startsWith(".") || statSync(join(dist, path)).isDirectory()) continue;
    const compiled = /^(.+?)(\.d\.ts|\.js)$/.exec(path);
    if (!(compiled ? sources.has(`${compiled[1]}.ts`) : isAsset(path) && sources.has(path)))
      rmSync(join(dist, path));
  }
}

/** Copies what tsc does not: kernels and other files read at run time. */
function copyAssets(sources) {
  for (const path of sources) {
    if (!isAsset(path) || statSync(join(src, path)).isDirectory()) continue;
    mkdirSync(dirname(join(dist, path)), { recursive: true });
    copyFileSync(join(src, path), join(dist, path));
  }
}

function isAsset(path) {
  return !path.endsWith(".ts") && !/[\\/]fixtures[\\/]/.test(path);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    build();
  } catch (error) {
    console.error(`Build failed: ${error.message}`);
    process.exitCode = 1;
  }
}
