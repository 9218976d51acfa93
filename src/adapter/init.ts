import { Random } from "../tensor/random.ts";
import { sizeOf, type Shape } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import type { LoraConfig } from "./lora-config.ts";

/**
 * The initial value of an adapter tensor that needs nothing of the base: A uniform in ±1/√in (Kaiming, a = √5),
 * Gaussian N(0, 1/r²) or Kaiming-normal of negative slope 0.01, B zero; embeddings: A zero, B standard normal.
 * `init: false`: both random. https://arxiv.org/abs/1502.01852
 * @param name tensor name; with `seed` it selects the random stream
 * @param shape (r, in, k…) for A, (out, r, 1…) for B
 */
export function initialTensor(
  config: LoraConfig,
  name: string,
  shape: Shape,
  seed: number,
): Tensor {
  const random = new Random(seed).fork(name);
  const values = new Float32Array(sizeOf(shape));
  const draw = drawOf(config, name, shape, random);
  for (let i = 0; i < values.length; i++) values[i] = draw();
  return tensor("f32", shape, values);
}

function drawOf(config: LoraConfig, name: string, shape: Shape, random: Random): () => number {
  const bound = 1 / Math.sqrt(sizeOf(shape.slice(1)));
  const uniform = (): number => bound * (2 * random.uniform() - 1);
  if (name.endsWith("lora_embedding_A")) return () => (config.init === false ? random.normal() : 0);
  if (name.endsWith("lora_embedding_B")) return () => random.normal();
  if (name.endsWith("lora_A.weight")) {
    const rank = shape[0]!;
    if (config.init === "gaussian") return () => random.normal() / rank;
    const deviation = bound * Math.sqrt(2 / (1 + 0.01 ** 2));
    return config.init === "kaiming-normal" ? () => random.normal() * deviation : uniform;
  }
  return config.init === false ? uniform : () => 0;
}
