import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { interpret } from "../src/backends/reference/interpret.ts";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import { verify } from "../src/ir/verify.ts";
import type { HfConfig } from "../src/models/config.ts";
import { causalLM } from "../src/models/registry.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";

const folder = join(import.meta.dirname, "fixtures/models");
const causal = ["llama", "llama-bf16", "llama-f16", "llama-rope3", "smollm2", "mistral", "qwen2", "qwen2-window", "qwen3"];

async function tensors(path: string): Promise<ReadonlyMap<string, Tensor>> {
  return (await decodeSafetensors(await readFile(path))).tensors;
}

async function config(path: string): Promise<HfConfig> {
  return JSON.parse(await readFile(path, "utf8")) as HfConfig;
}

/** Largest absolute difference between logits of the graph and transformers'. */
async function difference(name: string, file: string, prefix: string): Promise<number> {
  const weights = await tensors(join(folder, name, "model.safetensors"));
  const expected = await tensors(join(folder, name, "expected.safetensors"));
  const ids = expected.get(`${prefix}input_ids`)!;
  const [batch, length] = ids.shape as [number, number];
  const model = causalLM(await config(join(folder, name, file)), { batch, length });
  const logits = model.head(model.hidden);
  verify([logits]);
  const positions = tensor("i32", ids.shape, Int32Array.from({ length: batch * length }, (_, i) => i % length));
  const feeds: Record<string, Tensor> = { input_ids: ids, position_ids: positions };
  const [got] = interpret([logits], (leaf) => feeds[leaf] ?? weights.get(leaf)!);
  const want = toFloat64(expected.get(`${prefix}logits`)!);
  const mask = expected.get(`${prefix}attention_mask`);
  const V = logits.shape[1]!;
  let largest = 0;
  want.forEach((value, i) => {
    if (!mask || Number(mask.data[Math.floor(i / V)]) === 1) largest = Math.max(largest, Math.abs(value - got!.data[i]!));
  });
  expect(got!.data).toHaveLength(want.length);
  return largest;
}

describe.each(causal)("%s: logits of transformers, float32", (name) => {
  it("to 1e-4", async () => {
    expect(await difference(name, "config.json", "")).toBeLessThan(1e-4);
  });

  it("to 1e-4 where a row is padded on the right", async () => {
    expect(await difference(name, "config.json", "padded.")).toBeLessThan(1e-4);
  });
});

it.each(["llama", "llama-rope3"])("%s: reads the configuration in its old spelling", async (name) => {
  expect(await difference(name, "config.old.json", "")).toBeLessThan(1e-4);
});

it("names what is supported when a family is unknown", () => {
  expect(() => causalLM({ model_type: "lama" }, { batch: 1, length: 1 })).toThrow(/llama, mistral.*got lama/);
});
