import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";

import { freemem, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { freeMemory } from "./free-memory.ts";

let root: string;
beforeAll(async () => (root = await mkdtemp(join(tmpdir(), "cgroups-"))));
afterAll(() => rm(root, { recursive: true }));

async function put(files: Readonly<Record<string, string>>): Promise<string> {
  const top = await mkdtemp(join(root, "root-"));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(top, name)), { recursive: true });
    await writeFile(join(top, name), text);
  }
  return top;
}

const machine = { platform: "linux", total: 24e9, free: 20e9, limit: 0, leftOfLimit: 20e9 };

it("is what the machine has where nothing limits it", async () => {
  for (const limit of [0, 2 ** 64, 24e9])
    expect(await freeMemory({ ...machine, limit, root })).toBe(20e9);
  const here = await freeMemory();
  expect(here).toBeGreaterThan(0.2 * freemem());
});

it("is what a container's limit leaves, with caches of files as free", async () => {
  const small = { ...machine, limit: 8e9, leftOfLimit: 1e9 };
  expect(await freeMemory({ ...small, root })).toBe(1e9);
  const second = await put({
    "proc/self/cgroup": "0::/",
    "sys/fs/cgroup/memory.stat": "anon 5\nactive_file 7\ninactive_file 3000000000\n",
  });
  expect(await freeMemory({ ...small, root: second })).toBe(4e9);
  expect(await freeMemory({ ...small, free: 2e9, root: second })).toBe(2e9);
  const first = await put({
    "proc/self/cgroup": "5:cpu:/a\n4:memory:/docker/b\n0::/\n",
    "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 2000000000\n",
  });
  expect(await freeMemory({ ...small, root: first })).toBe(3e9);
});

it("is most of a Mac's memory, whose free pages leave out what is given up on demand", async () => {
  expect(await freeMemory({ ...machine, platform: "darwin", free: 1e9, root })).toBe(18e9);
});
