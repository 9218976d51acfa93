/** @file Runs every GPU check without a test runner: `node run.js [start of names]…`. Prints one line a check. */
import { openDevice } from "../../src/backends/cuda/device.ts";
import { allChecks } from "./all.ts";
import { Skipped } from "./check.ts";

const wanted = process.argv.slice(2);
const device = openDevice(0);
let [passed, failed, skipped] = [0, 0, 0];
console.log(`${device.info.name}, compute capability ${device.info.capability.join(".")}`);
const chosen = allChecks.filter(
  ({ name }) => wanted.length === 0 || wanted.some((start) => name.startsWith(start)),
);
for (const check of chosen) check.prepare?.();
for (const check of chosen) {
  const start = performance.now();
  try {
    const report = await check.run(device);
    passed++;
    console.log(`ok   ${check.name}: ${report} (${Math.round(performance.now() - start)} ms)`);
  } catch (error) {
    if (error instanceof Skipped) {
      skipped++;
      console.log(`skip ${check.name}: ${error.message}`);
      continue;
    }
    failed++;
    console.log(`FAIL ${check.name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed > 0 ? 1 : 0;
