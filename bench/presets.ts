import { stat } from "node:fs/promises";
import { join } from "node:path";
import { encodeSafetensors } from "../src/formats/safetensors-write.ts";
import { writeAtomically } from "../src/host/files.ts";
import { rootsOf, topological } from "../src/ir/graph.ts";
import { causalLM } from "../src/models/registry.ts";
import { isFrozen } from "../src/ops/leaf.ts";
import { toBf16 } from "../src/tensor/convert.ts";
import { hash32 } from "../src/tensor/random.ts";
import { type Shape, sizeOf } from "../src/tensor/shape.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";

const shared = {
  model_type: "llama",
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  max_position_embeddings: 8192,
  tie_word_embeddings: true,
};

/** Shapes of models that are measured; the same as in peer/peft_train.py. */
export const presets: Readonly<
  Record<string, Readonly<Record<string, number | string | boolean>>>
> = {
  "storyteller-6m": {
    ...shared,
    ...{ hidden_size: 256, intermediate_size: 704, num_hidden_layers: 6, vocab_size: 6144 },
    ...{ num_attention_heads: 8, num_key_value_heads: 4, head_dim: 32 },
  },
  "smollm2-135m": {
    ...shared,
    ...{ hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30, vocab_size: 49152 },
    ...{ num_attention_heads: 9, num_key_value_heads: 3, head_dim: 64 },
  },
  "llama3.2-1b": {
    ...shared,
    ...{ hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: 16, vocab_size: 128256 },
    ...{ num_attention_heads: 32, num_key_value_heads: 8, head_dim: 64 },
  },
  "llama3.1-8b": {
    ...shared,
    ...{ hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 32, vocab_size: 128256 },
    ...{ num_attention_heads: 32, num_key_value_heads: 8, head_dim: 128 },
    tie_word_embeddings: false,
  },
};

/** A folder with random weights of that shape, made at the first call. */
export async function randomCheckpoint(
  name: string,
  folder: string,
  dtype: "f32" | "bf16" = "f32",
): Promise<string> {
  const config = presets[name];
  if (!config)
    throw new RangeError(`Expected one of ${Object.keys(presets).join(", ")}, got ${name}`);
  const path = join(folder, `${name}-${dtype}`);
  const file = join(path, "model.safetensors");
  if (await stat(file).catch(() => undefined)) return path;
  await writeAtomically(join(path, "config.json"), JSON.stringify(config));
  const { hidden, head } = causalLM(config, { batch: 1, length: 1 });
  const graph = { outputs: { logits: head(hidden) }, gradients: {} };
  const weights = topological(rootsOf(graph)).filter(isFrozen);
  const shapes = new Map(weights.map(({ name: weight, shape }) => [weight!, shape]));
  const specs = [...shapes].map(([weight, shape]) => ({ name: weight, dtype, shape }));
  const read = (weight: string): Tensor => randomWeight(shapes.get(weight)!, weight.length, dtype);
  await writeAtomically(file, encodeSafetensors(specs, read));
  return path;
}

/** Uniform in ±0.035 (deviation 0.02), as initialised models are; vectors are ones. */
function randomWeight(shape: Shape, seed: number, dtype: "f32" | "bf16"): Tensor {
  const key = hash32(seed, sizeOf(shape));
  const isVector = shape.length === 1;
  const value = (i: number): number => (isVector ? 1 : (hash32(key, i) / 2 ** 32 - 0.5) * 0.07);
  const length = sizeOf(shape);
  const data = dtype === "f32" ? new Float32Array(length) : new Uint16Array(length);
  for (let i = 0; i < length; i++) data[i] = dtype === "f32" ? value(i) : toBf16(value(i));
  return tensor(dtype, shape, data);
}
