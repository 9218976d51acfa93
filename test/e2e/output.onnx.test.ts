import { spawnSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { loadAdapter } from "../../src/index.ts";
import { lorikeet } from "../support/command.ts";

const isRoot = process.getuid?.() === 0;
let root: string;
let data: string;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "lorikeet-output-"));
  data = join(root, "chats.jsonl");
  await writeFile(data, JSON.stringify({ prompt: "Hello", completion: "Squawk!" }));
});
afterAll(async () => {
  for (const name of ["small", "locked"]) spawnSync("umount", [join(root, name)]);
  await rm(root, { recursive: true, force: true });
});

function train(output: string, ...flags: string[]): ReturnType<typeof lorikeet> {
  const sizes = ["--r", "8", "--target-modules", "all-linear", "--save-steps", "1"];
  return lorikeet("train", ...["--data", data, "--output-dir", output, "--threads", "1"], ...sizes, ...flags); // prettier-ignore
}

/** A file system of `size` in memory at `root`/`name`; false where this machine does not allow it. */
async function mounted(name: string, options: string): Promise<string | undefined> {
  const folder = join(root, name);
  await mkdir(folder);
  const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", folder]);
  return status === 0 ? folder : undefined;
}

test("a disk that fills up: the error says so, and what was saved before is whole", async (context) => {
  // one checkpoint of this adapter has 2.5 MB, so the second one does not fit
  const folder = await mounted("small", "size=4m");
  if (folder === undefined) return context.skip("mounting a file system needs root");
  const output = join(folder, "out");
  const { code, err } = await train(output, "--max-steps", "3");
  expect(err).toContain("error[disk-full]: ");
  expect(code).toBe(1);
  const names = await readdir(output);
  expect(names.filter((name) => name.includes(".tmp"))).toEqual([]);
  expect(names).toContain("checkpoint-1");
  expect(names).not.toContain("checkpoint-2");
  expect((await loadAdapter(join(output, "checkpoint-1"))).tensors.size).toBe(84);
}, 120_000);

test("a read-only output folder is refused before training", async (context) => {
  const folder = isRoot ? await mounted("locked", "ro") : join(root, "locked");
  if (folder === undefined) return context.skip("mounting a file system needs privileges");
  if (!isRoot) {
    await chmod(root, 0o555);
  }
  const { code, out, err } = await train(join(folder, "out"), "--max-steps", "1");
  if (!isRoot) await chmod(root, 0o755);
  expect(err).toContain(isRoot ? "error[read-only]: " : "error[permission-denied]: ");
  expect(err).not.toContain("loss");
  expect([code, out]).toEqual([1, ""]);
}, 120_000);
