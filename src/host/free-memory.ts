import { readFile } from "node:fs/promises";
import { freemem, totalmem } from "node:os";
import { join } from "node:path";

/** What the operating system says; `root` stands for `/`. */
export interface MemoryFacts {
  readonly platform: string;
  readonly total: number;
  /** Of the machine. */
  readonly free: number;
  /** Limit of this process's container; 0 or more than `total`: none. */
  readonly limit: number;
  /** Of the limit, with file caches counted as used. */
  readonly leftOfLimit: number;
  readonly root: string;
}

/** Share of a Mac's memory that a run may take: its free pages leave out what is given up on demand. */
const OF_MAC = 0.75;

/**
 * Bytes that a process can still get: what the machine has, or what the container's limit (cgroups, version 1 or 2)
 * leaves. Caches of files, which are given up on demand, count as free in both.
 * https://docs.kernel.org/admin-guide/cgroup-v2.html#memory
 */
export async function freeMemory(facts: MemoryFacts = currentFacts()): Promise<number> {
  const { platform, total, free, limit, leftOfLimit, root } = facts;
  if (platform === "darwin") return Math.max(free, OF_MAC * total);
  if (limit <= 0 || limit >= total) return free;
  return Math.min(free, limit, leftOfLimit + (await cachedFiles(root)));
}

function currentFacts(): MemoryFacts {
  return {
    platform: process.platform,
    total: totalmem(),
    free: freemem(),
    limit: process.constrainedMemory(),
    leftOfLimit: process.availableMemory(),
    root: "/",
  };
}

/** Bytes of file caches that the container's limit counts and that were not used lately. */
async function cachedFiles(root: string): Promise<number> {
  const groups = await textOf(join(root, "proc/self/cgroup"));
  const [, own = "/"] = /^\d+:memory:(.*)$/m.exec(groups) ?? /^0::(.*)$/m.exec(groups) ?? [];
  // within a container the group is mounted at the top, whatever it is called outside
  for (const place of ["memory", ""])
    for (const group of [own, ""]) {
      const stat = await textOf(join(root, "sys/fs/cgroup", place, group, "memory.stat"));
      const found =
        /^total_inactive_file (\d+)$/m.exec(stat) ?? /^inactive_file (\d+)$/m.exec(stat);
      if (found) return Number(found[1]);
    }
  return 0;
}

function textOf(path: string): Promise<string> {
  return readFile(path, "utf8").catch(() => "");
}
