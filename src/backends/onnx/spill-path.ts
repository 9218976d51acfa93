import { randomUUID } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

/** `lorikeet-<process>-<machine>-<random>.weights` */
const PATTERN = /^lorikeet-(\d+)-(.+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.weights$/;

/** Where this process may write weights below `folder`: a new path at each call. */
export function spillPath(folder: string): string {
  return join(folder, `lorikeet-${process.pid}-${hostname()}-${randomUUID()}.weights`);
}

/** Removes the files of `spillPath` in `folder` that processes of this machine left when they were killed. */
export async function removeStaleSpills(folder: string): Promise<void> {
  const stale = (await readdir(folder)).filter((name) => {
    const [, process, machine] = PATTERN.exec(name) ?? [];
    return machine === hostname() && !isRunning(Number(process));
  });
  await Promise.all(stale.map((name) => rm(join(folder, name), { force: true })));
}

function isRunning(id: number): boolean {
  try {
    process.kill(id, 0); // sends nothing
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // another user's
  }
}
