/** @file Counts the code lines of the compiler against its budget: what it can do should grow faster than its size. */
import { readdirSync, readFileSync } from "node:fs";

const budget = 5000;
const folders = ["src/ir", "src/ops", "src/passes"];

const counts = folders.map((folder) =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts") && !path.endsWith(".test.ts"))
    .reduce((sum, path) => sum + codeLines(readFileSync(`${folder}/${path}`, "utf8")), 0),
);
const total = counts.reduce((sum, count) => sum + count, 0);
const parts = folders.map((folder, i) => `${folder} ${counts[i]}`);
console.log(`${parts.join(" + ")} = ${total} code lines of ${budget}`);
if (total > budget) process.exitCode = 1;

/** Lines that hold more than space and comments. */
function codeLines(text) {
  const withoutBlocks = text.replace(/^\s*\/\*.*?\*\//gms, "");
  return withoutBlocks.split("\n").filter((line) => /^\s*(?!\/\/)\S/.test(line)).length;
}
