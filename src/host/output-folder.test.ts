import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { writeFolder } from "./output-folder.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "lorikeet-folder-"));
});
afterEach(() => rm(root, { recursive: true, force: true }));

const write = (folder: string): Promise<void> => writeFile(join(folder, "config.json"), "{}");

test("a folder appears whole, and replaces an older model only when asked", async () => {
  const path = join(root, "x", "model");
  await writeFolder(path, {}, write);
  await expect(writeFolder(path, {}, write)).rejects.toMatchObject({ code: "output-exists" });
  await writeFile(join(path, "old.txt"), "");
  await writeFolder(path, { overwrite: true }, write);
  expect(await readdir(path)).toEqual(["config.json"]);
  expect(await readdir(join(root, "x"))).toEqual(["model"]);
});

test.each([
  [["notes.txt"], "holds notes.txt"],
  [["adapter_config.json", "config.json"], "holds adapter_config.json"],
  [["checkpoint-20", "config.json"], "holds checkpoint-20"],
])("overwriting removes no folder of %j", async (names, reason) => {
  for (const name of names) await mkdir(join(root, name));
  await expect(writeFolder(root, { overwrite: true }, write)).rejects.toMatchObject({
    code: "output-exists",
    message: expect.stringContaining(reason) as string,
  });
  expect(await readdir(root)).toEqual(names);
});

test("nor one that the working folder is in", async () => {
  for (const path of [".", ".."])
    await expect(writeFolder(path, { overwrite: true }, write)).rejects.toMatchObject({
      message: expect.stringContaining("around the working folder") as string,
    });
});

test.skipIf(process.platform === "win32")(
  "Ctrl-C leaves nothing behind, and ends the process",
  async () => {
    const modules = ["output-folder", "files"].map((name) => JSON.stringify(pathToFileURL(`src/host/${name}.ts`).href)); // prettier-ignore
    const code = `
    const [{ writeFolder }, { writeAtomically }] = [await import(${modules[0]!}), await import(${modules[1]!})];
    await writeFolder(${JSON.stringify(join(root, "model"))}, {}, (folder) =>
      writeAtomically(folder + "/weights", (async function* () {
        yield Uint8Array.of(1);
        console.log("writing");
        await new Promise((resolve) => setTimeout(resolve, 60_000));
      })()));`;
    const loader = pathToFileURL("scripts/typescript.js").href;
    const child = spawn(process.execPath, ["--import", loader, "--input-type=module", "-e", code]);
    const ended = new Promise((resolve) => child.on("close", (_, signal) => { resolve(signal); })); // prettier-ignore
    await new Promise((resolve) => child.stdout.once("data", resolve));
    expect((await readdir(root)).length).toBe(1);
    child.kill("SIGINT");
    expect(await ended).toBe("SIGINT");
    expect(await readdir(root)).toEqual([]);
  },
  60_000,
);
