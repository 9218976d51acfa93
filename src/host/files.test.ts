import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { LorikeetError } from "../errors.ts";
import { asFileError } from "./file-errors.ts";
import { fileSource, isFile, readText, writeAtomically } from "./files.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lorikeet-files-"));
});
afterEach(() => rm(folder, { recursive: true }));

test("a source reads any range, aligned in memory, and names the file when it ends too early", async () => {
  const path = join(folder, "a");
  await writeFile(
    path,
    Uint8Array.from({ length: 100 }, (_, i) => i),
  );
  const source = await fileSource(path);
  expect(source.size).toBe(100);
  const bytes = await source.read(3, 4);
  expect([...bytes]).toEqual([3, 4, 5, 6]);
  expect(bytes.byteOffset).toBe(0);
  expect(await source.read(100, 0)).toHaveLength(0);
  await expect(source.read(98, 4)).rejects.toThrow(
    /at least 102 bytes, got 100: 2 bytes are missing/,
  );
  await writeFile(path, new Uint8Array(50));
  await expect(source.read(40, 20)).rejects.toMatchObject({ code: "truncated-file" });
});

test("what is not a readable file is a coded error", async () => {
  const missing = join(folder, "b");
  await expect(fileSource(missing)).rejects.toMatchObject({ code: "file-not-found" });
  await expect(readText(missing)).rejects.toMatchObject({ code: "file-not-found" });
  await expect(fileSource(folder)).rejects.toMatchObject({ code: "file-is-folder" });
  await writeFile(missing, "");
  await expect(fileSource(join(missing, "c"))).rejects.toMatchObject({ code: "file-not-found" });
  expect(await isFile(missing)).toBe(true);
  expect(await isFile(folder)).toBe(false);
});

test("writes text, bytes and pieces, making folders, leaving no temporary file", async () => {
  const path = join(folder, "x", "y");
  await writeAtomically(path, "é");
  expect(await readText(path)).toBe("é");
  await writeAtomically(path, Uint8Array.of(1, 2));
  await writeAtomically(path, [Uint8Array.of(1), Uint8Array.of(), Uint8Array.of(2, 3)]);
  expect([...(await readFile(path))]).toEqual([1, 2, 3]);
  expect(await readdir(join(folder, "x"))).toEqual(["y"]);
});

test("a failure while writing keeps the old file and removes the temporary one", async () => {
  const path = join(folder, "a");
  await writeAtomically(path, "old");
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield Uint8Array.of(1, 2, 3);
    await Promise.reject(new LorikeetError("non-finite", "Expected numbers"));
  }
  await expect(writeAtomically(path, broken())).rejects.toMatchObject({ code: "non-finite" });
  expect(await readText(path)).toBe("old");
  expect(await readdir(folder)).toEqual(["a"]);
});

test("a folder in the way is a coded error", async () => {
  await expect(writeAtomically(folder, "x")).rejects.toBeInstanceOf(LorikeetError);
  await writeAtomically(join(folder, "a"), "");
  await expect(writeAtomically(join(folder, "a", "b"), "x")).rejects.toMatchObject({
    code: "file-not-found",
    message: expect.stringContaining("a part of its path is a file") as string,
  });
  expect(await readdir(folder)).toEqual(["a"]);
});

test.runIf(process.platform === "linux")("a place that takes no folders is an error", async () => {
  // Node's recursive mkdir tries this for ever
  await expect(writeAtomically("/proc/lorikeet/a", "x")).rejects.toBeInstanceOf(LorikeetError);
});

test.runIf(process.platform === "linux")("a full disk is told as such", async () => {
  const cause: unknown = await writeFile("/dev/full", "x").catch((error: unknown) => error);
  const error = asFileError(cause, "out/adapter_model.safetensors", "written");
  expect(error).toMatchObject({
    code: "disk-full",
    message:
      "Expected out/adapter_model.safetensors to be written, but it does not fit: the disk is full",
    cause,
  });
});

test.each([
  ["EROFS", "read-only"],
  ["EACCES", "permission-denied"],
  ["EDQUOT", "disk-full"],
  ["EMFILE", "file-error"],
])("%s is %s", (errno, code) => {
  const cause = Object.assign(new Error(errno), { code: errno });
  expect(asFileError(cause, "p", "written")).toMatchObject({ code, cause });
});

test("errors that are not the operating system's pass unchanged", () => {
  const error = new RangeError("x");
  expect(asFileError(error, "p", "written")).toBe(error);
});
