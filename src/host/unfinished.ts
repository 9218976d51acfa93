import { rmSync } from "node:fs";

const SIGNALS = ["SIGINT", "SIGTERM"] as const;
const paths = new Set<string>();

/**
 * Does `work`, which writes to the temporary `path`. Ctrl-C or SIGTERM meanwhile removes the path and ends the process
 * as it would have without; where something else listens to the signal, it decides.
 */
export async function whileUnfinished<T>(path: string, work: () => Promise<T>): Promise<T> {
  if (paths.size === 0) for (const name of SIGNALS) process.on(name, removeAll);
  paths.add(path);
  try {
    return await work();
  } finally {
    paths.delete(path);
    if (paths.size === 0) for (const name of SIGNALS) process.off(name, removeAll);
  }
}

function removeAll(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 1) return;
  for (const path of paths) rmSync(path, { recursive: true, force: true });
  process.off(signal, removeAll);
  process.kill(process.pid, signal);
}
