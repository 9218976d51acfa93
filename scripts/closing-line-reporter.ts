import { writeSync } from "node:fs";
import type { Reporter } from "vitest/node";

/**
 * Prints `N passed, N failed, N skipped` as the very last line of a run.
 * A file or hook that fails without a failed test, and an error outside any test, count as failed.
 */
export const closingLineReporter: Reporter = {
  onTestRunEnd(modules, unhandledErrors) {
    const count = { passed: 0, failed: unhandledErrors.length, skipped: 0, pending: 0 };
    for (const module of modules) {
      const before = count.failed;
      for (const test of module.children.allTests()) count[test.result().state]++;
      if (!module.ok() && count.failed === before) count.failed++;
    }
    const { passed, failed, skipped, pending } = count; // pending: the run was stopped before they began
    const line = `${passed} passed, ${failed} failed, ${skipped + pending} skipped\n`;
    process.once("exit", () => writeSync(1, line));
  },
};
