import { readdirSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { serializeSafetensors } from "../formats/safetensors-write.ts";
import { formatShardIndex } from "../formats/safetensors-index.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { loadAdapterFolder, saveAdapter } from "./adapter-files.ts";

const fixtures = join(import.meta.dirname, "../../test/fixtures/adapters");
const plain = join(fixtures, "rank-pattern/adapter");
let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "lorikeet-adapters-"));
});
afterAll(() => rm(scratch, { recursive: true }));

async function written(folder: string, files: Record<string, Map<string, Tensor> | string>): Promise<string> {
  const path = join(scratch, folder);
  await cp(join(plain, "adapter_config.json"), join(path, "adapter_config.json"));
  for (const [name, content] of Object.entries(files))
    await writeFile(join(path, name), typeof content === "string" ? content : serializeSafetensors(content)); // prettier-ignore
  return path;
} // prettier-ignore

it("finds an adapter in the subfolder that PEFT names after it", async () => {
  const named = await loadAdapterFolder(join(fixtures, "adapter-name-save/adapter"));
  expect(named.config.modulesToSave).toEqual(["lm_head"]);
  await cp(join(fixtures, "adapter-name-save/adapter/story"), join(scratch, "two/a"), { recursive: true }); // prettier-ignore
  await cp(plain, join(scratch, "two/b"), { recursive: true });
  await expect(loadAdapterFolder(join(scratch, "two"))).rejects.toThrow(/found a, b/);
  await expect(loadAdapterFolder(scratch)).rejects.toMatchObject({ code: "file-not-found" });
});

it("reads shards, and keys without prefix, as the same adapter", async () => {
  const { tensors } = await loadAdapterFolder(plain);
  const entries = [...tensors];
  const [one, two] = [new Map(entries.slice(0, 5)), new Map(entries.slice(5))];
  const map = new Map(entries.map(([key], i) => [key, i < 5 ? "one.safetensors" : "two.safetensors"])); // prettier-ignore
  const sharded = await written("sharded", {
    "one.safetensors": one,
    "two.safetensors": two,
    "adapter_model.safetensors.index.json": formatShardIndex(map, 0),
  });
  const bare = new Map(
    entries.map(([key, value]) => [key.replace("base_model.model.", ""), value]),
  );
  const unprefixed = await written("bare", { "adapter_model.safetensors": bare });
  for (const folder of [sharded, unprefixed]) {
    const loaded = await loadAdapterFolder(folder);
    expect(new Map([...loaded.tensors].sort())).toEqual(new Map(entries.sort()));
  }
});

const saved = readdirSync(fixtures, { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith("adapter_model.safetensors"))
  .map((path) => dirname(path));

it.each(saved)("writes what PEFT wrote: %s, tensors byte for byte, the configuration field by field", async (name) => {
  const [from, to] = [join(fixtures, name), join(scratch, "again", name)];
  await saveAdapter(await loadAdapterFolder(from), to);
  const file = "adapter_model.safetensors";
  expect(await readFile(join(to, file))).toEqual(await readFile(join(from, file)));
  const [want, got] = await Promise.all([from, to].map((folder) => readFile(join(folder, "adapter_config.json"), "utf8"))); // prettier-ignore
  expect(JSON.parse(got!)).toEqual(JSON.parse(want!));
}); // prettier-ignore
