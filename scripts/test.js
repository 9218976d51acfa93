/** @file `npm test`: readies the clone, then runs Vitest with the arguments given. The last line counts the tests. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { setup } from "./setup.js";

const root = new URL("../", import.meta.url);

try {
  setup();
  const vitest = fileURLToPath(new URL("node_modules/vitest/vitest.mjs", root));
  const args = [vitest, "run", ...process.argv.slice(2)];
  // tests that start a process take what was built now
  const env = { ...process.env, LORIKEET_BUILT: "1" };
  const { status } = spawnSync(process.execPath, args, { cwd: root, env, stdio: "inherit" });
  process.exitCode = status ?? 1;
} catch (error) {
  console.error(`Setup failed: ${error.message}`);
  console.log("0 passed, 1 failed, 0 skipped"); // no test could run
  process.exitCode = 1;
}
