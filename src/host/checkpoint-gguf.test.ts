import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { WeightSource } from "../backends/backend.ts";
import type { ModelConfig } from "../formats/gguf/config.ts";
import { configToGguf } from "../formats/gguf/config-write.ts";
import { planGgufModel } from "../formats/gguf/export-model.ts";
import type { GgufMetadata } from "../formats/gguf/metadata.ts";
import type { WritableType } from "../formats/gguf/quantize.ts";
import { readGguf } from "../formats/gguf/read.ts";
import { encodeGguf } from "../formats/gguf/write.ts";
import { toFloat32 } from "../tensor/convert.ts";
import { tensor } from "../tensor/tensor.ts";
import { openGguf } from "./checkpoint-gguf.ts";
import { openSafetensors } from "./checkpoint-weights.ts";
import { fileSource, readText, writeAtomically } from "./files.ts";

const models = new URL("../../test/fixtures/models/", import.meta.url).pathname;
let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lorikeet-gguf-"));
});
afterEach(() => rm(folder, { recursive: true }));

interface Converted {
  readonly path: string;
  readonly config: ModelConfig;
  readonly source: WeightSource;
  readonly warnings: readonly string[];
}

/** Writes the fixture model `name` as GGUF. */
async function convert(
  name: string,
  type: WritableType,
  changes: ModelConfig = {},
): Promise<Converted> {
  const json = JSON.parse(await readText(join(models, name, "config.json"))) as ModelConfig;
  const config = { ...json, ...changes };
  const source = await openSafetensors(join(models, name, "model.safetensors"));
  const { metadata, specs, read, warnings } = planGgufModel(
    { name, config, weights: source },
    { type },
  );
  const path = join(folder, `${name}.gguf`);
  await writeAtomically(path, encodeGguf(metadata, specs, read));
  return { path, config, source, warnings };
}

describe("a model written as F32 GGUF reads back as its Hugging Face weights", () => {
  test.each(["llama", "llama-rope3", "smollm2", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "phi3-longrope", "gpt2"])(
    "%s",
    async (name) => {
      const plain = Array<string>(3).fill("sliding_attention");
      const changes = name === "gemma3_text" ? { layer_types: plain, query_pre_attn_scalar: 16 } : name === "gemma2" ? { query_pre_attn_scalar: 16 } : {}; // prettier-ignore
      const { path, config, source } = await convert(name, "F32", changes);
      const checkpoint = await openGguf(path);
      expect([...checkpoint.weights.names].sort()).toEqual([...source.names].sort());
      expect(checkpoint.config["model_type"]).toBe(config["model_type"]);
      for (const key of source.names) {
        const expected = await source.read(key);
        const { dtype, shape } = checkpoint.weights.get(key);
        const got = await checkpoint.weights.read(key);
        expect({ dtype, shape }, key).toEqual({ dtype: got.dtype, shape: got.shape });
        expect(got.shape, key).toEqual(expected.shape);
        // Gemma's norms are stored as 1 + w in f32: half an ulp of 2 is lost
        const tolerance = name.startsWith("gemma") && key.includes("norm") ? 2 ** -23 : 0;
        const difference = toFloat32(got).map((x, i) => Math.abs(x - toFloat32(expected)[i]!));
        expect(Math.max(...difference), key).toBeLessThanOrEqual(tolerance);
      }
    },
  ); // prettier-ignore
});

test("plain weights are file ranges; permuted and quantized ones are computed", async () => {
  const { path } = await convert("llama", "F16");
  const { weights, config } = await openGguf(path);
  expect(config["dtype"]).toBe("float16");
  const value = weights.get("model.layers.0.self_attn.v_proj.weight");
  expect(value).toMatchObject({ dtype: "f16", bytes: { kind: "file", path } });
  const { bytes } = value;
  if (bytes.kind !== "file") throw new Error("no file range");
  const raw = await (await fileSource(path)).read(bytes.offset, bytes.length);
  const { data } = await weights.read("model.layers.0.self_attn.v_proj.weight");
  expect(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)).toEqual(raw);
  expect(weights.get("model.layers.0.self_attn.q_proj.weight")).toMatchObject({ dtype: "f16", bytes: { kind: "computed" } }); // prettier-ignore
  const quantized = await openGguf((await convert("llama", "Q8_0")).path);
  const embedding = quantized.weights.get("model.embed_tokens.weight");
  expect(embedding).toMatchObject({ dtype: "f32", bytes: { kind: "computed" } });
  expect((await quantized.weights.read("model.embed_tokens.weight")).dtype).toBe("f32");
  await expect(weights.read("lm.weight")).rejects.toMatchObject({ code: "missing-weight" });
});

async function write(file: string, metadata: GgufMetadata, names: string[]): Promise<string> {
  const path = join(folder, file);
  const specs = names.map((name) => ({ name, type: "F32" as const, shape: [2, 2] }));
  const value = tensor("f32", [2, 2], Float32Array.of(1, 2, 3, 4));
  await writeAtomically(
    path,
    encodeGguf(metadata, specs, () => value),
  );
  return path;
}

async function llamaMetadata(
  extra: [string, number][] = [],
): Promise<Map<string, { type: "string" | "u32" | "f32"; value: string | number }>> {
  const config = JSON.parse(await readText(join(models, "llama/config.json"))) as ModelConfig;
  const { metadata } = configToGguf(config, { type: "F32" });
  return new Map([
    ...metadata,
    ...extra.map(([key, value]) => [key, { type: "u32", value }]),
  ] as never);
}

test("a split model reads like one file, and its missing parts are named", async () => {
  const metadata = await llamaMetadata([["split.count", 2]]);
  const first = await write("m-00001-of-00002.gguf", metadata, ["token_embd.weight"]);
  await expect(openGguf(first)).rejects.toMatchObject({ code: "missing-shard" });
  await expect(openGguf(first)).rejects.toThrow(/1 are missing: .*m-00002-of-00002.gguf/);
  const second = await write("m-00002-of-00002.gguf", new Map([["split.count", { type: "u32", value: 2 }]]), ["output.weight"]); // prettier-ignore
  const { weights, config } = await openGguf(first);
  expect(weights.names).toEqual(["model.embed_tokens.weight", "lm_head.weight"]);
  expect(config["tie_word_embeddings"]).toBe(false);
  expect([...(await weights.read("lm_head.weight")).data]).toEqual([1, 2, 3, 4]);
  await expect(openGguf(second)).rejects.toThrow(/first of 2 files/);
});

test("tensors that a plain model lacks, and types that cannot be read, are all named", async () => {
  const metadata = await llamaMetadata();
  const odd = await write("moe.gguf", metadata, ["blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight"]); // prettier-ignore
  await expect(openGguf(odd)).rejects.toMatchObject({ code: "unsupported-architecture" });
  await expect(openGguf(odd)).rejects.toThrow(/2 faults[^]*ffn_gate_exps[^]*ffn_up_exps/);
  const path = await write("iq.gguf", metadata, ["token_embd.weight"]);
  const bytes = Buffer.from(await (await fileSource(path)).read(0, (await fileSource(path)).size));
  const at = bytes.indexOf("token_embd.weight") + "token_embd.weight".length + 4 + 16;
  bytes.writeUInt32LE(24, at); // I8 instead of F32
  await writeFile(path, bytes);
  await expect(openGguf(path)).rejects.toMatchObject({ code: "unsupported-quantization" });
  await expect(openGguf(path)).rejects.toThrow(/"token_embd.weight" is I8/);
});

test("a file that was cut off is named, with both sizes", async () => {
  const { path } = await convert("llama", "F16");
  const { size } = await fileSource(path);
  await truncate(path, size - 1000);
  await expect(openGguf(path)).rejects.toMatchObject({ code: "truncated-file" });
  await expect(openGguf(path)).rejects.toThrow(new RegExp(`llama.gguf .* got ${size - 1000}`));
});

test("the header is read in a few pieces, not the whole file", async () => {
  const { path } = await convert("llama", "F32");
  const source = await fileSource(path);
  const lengths: number[] = [];
  await readGguf({ ...source, read: (offset, length) => { lengths.push(length); return source.read(offset, length); } }); // prettier-ignore
  expect(lengths).toEqual([Math.min(2 ** 20, source.size)]);
});

test("what llama.cpp would run otherwise is warned of, what it has no place for refused", async () => {
  expect((await convert("llama", "F32")).warnings).toEqual([]);
  expect((await convert("mistral", "F32")).warnings).toEqual([
    "llama.cpp ignores the sliding window of 5 tokens: longer texts get other answers",
  ]);
  const { config, source } = await convert("llama", "F32");
  const names = [...source.names, "model.layers.0.odd.weight", "model.rotary_emb.inv_freq"];
  const weights = { ...source, names };
  expect(() => planGgufModel({ name: "x", config, weights }, { type: "F32" })).toThrow(
    /1 fault:\n {2}- weight "model.layers.0.odd.weight"$/,
  );
});
