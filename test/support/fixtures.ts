import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { decodeSafetensors } from "../../src/formats/safetensors.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { tensor, type Tensor } from "../../src/tensor/tensor.ts";

const folder = join(import.meta.dirname, "../fixtures/models");

/** Causal checkpoints under test/fixtures/models. */
export const causalFixtures: readonly string[] = [
  "llama",
  "llama-bf16",
  "llama-f16",
  "llama-rope3",
  "smollm2",
  "mistral",
  "qwen2",
  "qwen2-window",
  "qwen3",
  "gemma",
  "gemma2",
  "gemma3_text",
  "phi3",
  "phi3-longrope",
  "gpt2",
  "gpt_neox",
  "gpt_neox-serial",
  "opt",
  "opt-350m",
];

/** A tiny checkpoint and what transformers computes from it. */
export interface Fixture {
  readonly config: HfConfig;
  readonly weights: ReadonlyMap<string, Tensor>;
  readonly expected: ReadonlyMap<string, Tensor>;
}

/** Reads the checkpoint `name`. */
export async function fixture(name: string, configFile = "config.json"): Promise<Fixture> {
  const [config, weights, expected] = await Promise.all([
    readFile(join(folder, name, configFile), "utf8"),
    tensors(join(folder, name, "model.safetensors")),
    tensors(join(folder, name, "expected.safetensors")),
  ]);
  return { config: JSON.parse(config) as HfConfig, weights, expected };
}

/** Positions 0 … T − 1 in each row, (B, T). */
export function positionsOf(batch: number, length: number): Tensor {
  return ints([batch, length], (i) => i % length);
}

/** Whole numbers `f(i)` as an i32 tensor. */
export function ints(shape: readonly number[], f: (i: number) => number): Tensor {
  const length = shape.reduce((size, dim) => size * dim, 1);
  return tensor(
    "i32",
    shape,
    Int32Array.from({ length }, (_, i) => f(i)),
  );
}

/** Fed values, or weights. */
export function binding(
  feeds: Readonly<Record<string, Tensor>>,
  { weights }: Fixture,
): (name: string) => Tensor {
  return (name) => {
    const value = feeds[name] ?? weights.get(name);
    if (!value) throw new Error(`no value for ${name}`);
    return value;
  };
}

async function tensors(path: string): Promise<ReadonlyMap<string, Tensor>> {
  return (await decodeSafetensors(await readFile(path))).tensors;
}
