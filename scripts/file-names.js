/** @file Checks names: kebab-case files and folders, no drawer for leftovers, a test project for each kind of test. */
import { readdirSync } from "node:fs";
import { basename, dirname } from "node:path";

const folders = ["src", "test", "bench", "scripts", "docs", "examples", "web"];
const source = /\.(ts|tsx|js|mjs|cjs|cu|cuh|md|css|html)$/;
const kebab = /^([a-z0-9]+(-[a-z0-9]+)*|README)$/;
const drawers = /^(utils?|helpers?|common|misc)$/;
const testKinds = ["onnx", "cuda"];

const faults = [];
for (const path of readdirSync(".", { withFileTypes: true }).flatMap(filesBelow)) {
  const [stem, ...suffixes] = basename(path).replace(source, "").split(".");
  const parts = [...dirname(path).split("/"), stem];
  for (const part of parts) {
    if (!kebab.test(part)) faults.push(`${path}: expected kebab-case, got "${part}"`);
    if (drawers.test(part)) faults.push(`${path}: "${part}" says nothing; name what it holds`);
  }
  const kind = suffixes.at(-1) === "test" ? suffixes.at(-2) : undefined;
  if (kind && !testKinds.includes(kind))
    faults.push(`${path}: no test project in vitest.config.ts runs ".${kind}.test"`);
}

function filesBelow(folder) {
  if (!folders.includes(folder.name)) return [];
  return readdirSync(folder.name, { recursive: true, encoding: "utf8" })
    .map((path) => `${folder.name}/${path.replaceAll("\\", "/")}`)
    .filter((path) => source.test(path) && !/\/(node_modules|dist|fixtures|results)\//.test(path));
}

for (const fault of faults) console.error(fault);
if (faults.length > 0) process.exitCode = 1;
