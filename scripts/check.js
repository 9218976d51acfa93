/** @file `npm run check`: every check but the tests, each in turn; all run even when one fails. */
import { spawnSync } from "node:child_process";
import { setup } from "./setup.js";

const stages = [
  "format:check",
  "lint",
  "types",
  "layers",
  "names",
  "dead-code",
  "line-budget",
  "package-lint",
  "generated",
];

const failed = [];
try {
  setup();
} catch (error) {
  console.error(`Setup failed: ${error.message}`);
  failed.push("setup");
}
for (const stage of stages) {
  console.log(`\n── ${stage}`);
  const startedAt = performance.now();
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const { status } = spawnSync(npm, ["run", "--silent", stage], {
    stdio: "inherit",
    shell: process.platform === "win32",
  });
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  console.log(`── ${stage}: ${status === 0 ? "ok" : "FAILED"} (${seconds} s)`);
  if (status !== 0) failed.push(stage);
}
console.log(failed.length > 0 ? `\nChecks failed: ${failed.join(", ")}` : "\nAll checks passed");
if (failed.length > 0) process.exitCode = 1;
