import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModel } from "../src/api/load-model.ts";
import { merge, mergeToGguf } from "../src/api/merge.ts";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import { loadAdapterFolder, saveAdapter } from "../src/host/adapter-files.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { lorikeet } from "./support/command.ts";

const root = import.meta.dirname;
const golden = join(root, "golden");
let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "lorikeet-merge-"));
});
afterAll(() => rm(scratch, { recursive: true }));

async function values(path: string): Promise<ReadonlyMap<string, Tensor>> {
  return (await decodeSafetensors(await readFile(path))).tensors;
}

async function logitsOf(reference: string, ids: Tensor): Promise<Tensor> {
  const model = await loadModel(reference);
  const T = ids.shape[1]!;
  const rows = Array.from({ length: ids.shape[0]! }, (_, b) =>
    Array.from(ids.data.subarray(b * T, (b + 1) * T) as never, Number),
  );
  try {
    return await model.logits(rows);
  } finally {
    await model.dispose();
  }
}

function largestDifference(got: Tensor, want: Tensor, tokens?: readonly number[]): number {
  const n = want.shape[2]!;
  return toFloat64(want).reduce((largest, value, i) => {
    const at = Math.floor(i / n) * got.shape[2]! + (tokens?.[i % n] ?? i % n);
    return Math.max(largest, Math.abs(Number(got.data[at]) - value));
  }, 0);
}

describe.each(["lora", "rslora", "dora", "patterns"])("merged %s of storyteller-6m", (name) => {
  const adapterFolder = join(golden, name, "adapter_after10");

  it("has PEFT's merged logits in f32, as safetensors shards and as GGUF", async () => {
    const want = await values(join(golden, name, "golden.safetensors"));
    const shared = await values(join(golden, "base.safetensors"));
    const ids = shared.get("input_ids")!;
    const tokens = [...shared.get("logit_tokens")!.data].map(Number);
    const model = await loadModel("storyteller-6m");
    const adapter = await loadAdapterFolder(adapterFolder);
    const folder = join(scratch, name);
    const result = await merge(model, adapter, folder, { dtype: "f32", maxShardBytes: 8e6 });
    expect(result.changed.length).toBeGreaterThan(0);
    expect((await readdir(folder)).join()).toMatch(/model-00002-of-0000\d\.safetensors/);
    const expected = want.get("merged_logits_after10")!;
    expect(largestDifference(await logitsOf(folder, ids), expected, tokens)).toBeLessThan(1e-4);

    const gguf = await mergeToGguf(model, adapter, join(scratch, `${name}-gguf`), { type: "F32" });
    const file = join(gguf.path, gguf.files[0]!);
    expect(largestDifference(await logitsOf(file, ids), expected, tokens)).toBeLessThan(1e-4);
  });
});

const cases = [
  "save-norms",
  "dora-rslora-bias-save",
  "gpt2-dora",
  "gpt2-bias-save",
  "embedding-tied",
  "embedding-dora",
  "tokens-tied",
  "tokens-dict",
  "parameters",
  "patterns-rslora",
];
describe.each(cases)("merged fixture %s", (name) => {
  it("computes what PEFT's adapted model does", async () => {
    const folder = join(root, "fixtures/adapters", name);
    const { base } = JSON.parse(await readFile(join(folder, "case.json"), "utf8")) as { base: string }; // prettier-ignore
    const model = await loadModel(join(root, "fixtures/models", base));
    const out = join(scratch, name);
    const result = await merge(model, await loadAdapterFolder(join(folder, "adapter")), out, { dtype: "f32" }); // prettier-ignore
    const want = await values(join(folder, "expected.safetensors"));
    const got = await logitsOf(out, want.get("input_ids")!);
    expect(largestDifference(got, want.get("adapter_logits")!)).toBeLessThan(1e-4);
    expect(result.unties).toBe(name === "embedding-tied");
  });
});

describe("lorikeet unmerge", () => {
  it("restores the base within the bound that it reports; refuses what a merge does not keep", async () => {
    const adapter = join(golden, "patterns/adapter_after10");
    const [merged, out] = [join(scratch, "to-undo"), join(scratch, "undone")];
    expect((await lorikeet("merge", "-a", adapter, "-o", merged)).code).toBe(0);
    const result = await lorikeet("unmerge", "-m", merged, "-a", adapter, "-o", out, "--base", "storyteller-6m", "--json"); // prettier-ignore
    expect(result.err).toBe("");
    const { errors } = JSON.parse(result.out) as {
      errors: { bound: number; difference: number }[];
    };
    expect(errors.length).toBeGreaterThan(0);
    for (const { bound, difference } of errors) expect(difference).toBeLessThanOrEqual(bound);
    const dora = await lorikeet("unmerge", "-m", merged, "-a", join(golden, "dora/adapter"), "-o", join(scratch, "no")); // prettier-ignore
    expect(dora.err).toContain("cannot-unmerge");
  });
});

describe("lorikeet convert", () => {
  it("takes an adapter to mlx-lm and back to the same model", async () => {
    const adapter = join(golden, "patterns/adapter_after10");
    const [mlx, back] = [join(scratch, "mlx"), join(scratch, "back")];
    const base = ["--model", "storyteller-6m"];
    expect((await lorikeet("convert", adapter, "--to", "mlx", "-o", mlx, ...base)).err).toBe("");
    expect((await lorikeet("convert", mlx, "--to", "peft", "-o", back)).err).toBe("");
    const model = await loadModel("storyteller-6m");
    const folders = ["one", "two"].map((name) => join(scratch, `mlx-${name}`));
    for (const [i, source] of [adapter, back].entries())
      await merge(model, await loadAdapterFolder(source), folders[i]!, { dtype: "f32" });
    const [one, two] = await Promise.all(folders.map((folder) => values(join(folder, "model.safetensors")))); // prettier-ignore
    for (const [name, { data }] of one!) {
      const other = two!.get(name)!.data;
      const worst = Array.from<number | bigint>(data).reduce<number>((most, value, k) => Math.max(most, Math.abs(Number(value) - Number(other[k]))), 0); // prettier-ignore
      expect(worst).toBeLessThan(1e-6);
    }
  });

  it("refuses DoRA for llama.cpp and names the remedy", async () => {
    const dora = await lorikeet("convert", join(golden, "dora/adapter"), "--to", "gguf", "-o", join(scratch, "dora.gguf"), "--model", "storyteller-6m"); // prettier-ignore
    expect(dora.err).toContain("unsupported-gguf");
    expect(dora.err).toContain("lorikeet merge --to gguf");
    expect(existsSync(join(scratch, "dora.gguf"))).toBe(false);
  });
});

describe("lorikeet merge", () => {
  const adapter = join(golden, "patterns/adapter_after10");

  it("keeps the base's dtype, copies the tokenizer, and refuses a folder that is in use", async () => {
    const out = join(scratch, "by-command");
    const first = await lorikeet("merge", "--adapter", adapter, "-o", out, "--json");
    expect(first.err).toBe("");
    const { files } = JSON.parse(first.out) as { files: string[] };
    expect(files).toContain("tokenizer.json");
    const merged = await values(join(out, "model.safetensors"));
    expect(new Set([...merged.values()].map(({ dtype }) => dtype))).toEqual(new Set(["bf16"]));
    const again = await lorikeet("merge", "--adapter", adapter, "-o", out);
    expect(again.code).toBe(1);
    expect(again.err).toContain("output-exists");
    expect((await lorikeet("merge", "--adapter", adapter, "-o", out, "--overwrite")).code).toBe(0);
  });

  it("refuses a quantized base unless told, and adapters of another model, and writes nothing then", async () => {
    const q8 = join(scratch, "q8");
    const made = await lorikeet(
      "merge",
      "-a",
      adapter,
      "-o",
      q8,
      "--to",
      "gguf",
      "--dtype",
      "q8_0",
    );
    expect(made.code).toBe(0);
    expect(await readFile(join(q8, "Modelfile"), "utf8")).toContain(
      "FROM ./storyteller-6m.Q8_0.gguf",
    );
    const base = join(q8, "storyteller-6m.Q8_0.gguf");
    const out = join(scratch, "refused");
    const refused = await lorikeet("merge", "-m", base, "-a", adapter, "-o", out);
    expect(refused.err).toContain("quantized-base");
    expect((await lorikeet("merge", "-m", base, "-a", adapter, "-o", out, "--requantize")).code).toBe(0); // prettier-ignore
    const again = join(scratch, "again");
    expect((await lorikeet("merge", "-m", base, "-a", adapter, "-o", again, "--to", "gguf", "--requantize")).code).toBe(0); // prettier-ignore
    expect(await readdir(again)).toContain("storyteller-6m.Q8_0.gguf");
    const other = await lorikeet("merge", "-m", join(root, "fixtures/models/qwen2"), "-a", adapter, "-o", join(scratch, "other")); // prettier-ignore
    expect(other.err).toContain("adapter-mismatch");
    expect(existsSync(join(scratch, "other"))).toBe(false);
  });

  it("refuses merged weights that are not finite", async () => {
    const copy = join(scratch, "broken");
    const files = await loadAdapterFolder(adapter);
    for (const [key, { data }] of files.tensors) if (key.includes("layers.2")) data[0] = Infinity;
    await saveAdapter(files, copy);
    const out = join(scratch, "not-finite");
    const result = await lorikeet("merge", "-a", copy, "-o", out);
    expect(result.err).toContain("not-finite");
    expect((await readdir(scratch)).filter((file) => file.startsWith("not-finite"))).toEqual([]);
  });
});
