import type { Node } from "../ir/node.ts";
import { tensor } from "../tensor/tensor.ts";
import type { Apply } from "./optimizer.ts";

/** Options of LoRA+. */
export interface LoraPlusOptions {
  /** Learning rate of B over that of A; 16 in the paper. */
  readonly ratio: number;
  /** Learning rate of adapters of embeddings, at the peak of the schedule; PEFT's default is 1e-6. */
  readonly embeddingRate: number;
  /** Peak learning rate of everything else. */
  readonly learningRate: number;
}

/**
 * LoRA+: factors on the learning rate of `parameters`, as PEFT's create_loraplus_optimizer groups them. B and all
 * vectors (biases, norms, DoRA's magnitudes) get `ratio`, adapters of embeddings a rate of their own.
 * https://arxiv.org/abs/2402.12354
 */
export function loraPlusScales(
  parameters: readonly Node[],
  { ratio, embeddingRate, learningRate }: LoraPlusOptions,
): Record<string, number> {
  const scaleOf = ({ name, shape }: Node): number => {
    if (name!.includes(".lora_embedding_")) return embeddingRate / learningRate;
    return name!.includes("lora_B") || shape.length === 1 ? ratio : 1;
  };
  return Object.fromEntries(parameters.map((parameter) => [parameter.name!, scaleOf(parameter)]));
}

/**
 * AdamW that, as PEFT's, does not shrink biases and the weights of layer norms (those of RMS norms it does). They are
 * divided by what decay will multiply them with, so engines know of one decay only.
 */
export function withoutDecay(parameters: readonly Node[]): Apply {
  const all = new Set(parameters.map(({ name }) => name!));
  // a vector with a bias beside it belongs to a layer norm
  const isSpared = ({ name, shape }: Node): boolean =>
    name!.endsWith("bias") ||
    (shape.length === 1 && /\.weight$/.test(name!) && all.has(name!.replace(/weight$/, "bias")));
  const names = parameters.filter(isSpared).map(({ name }) => name!);
  return async (engine, update) => {
    for (const name of update.weightDecay > 0 ? names : []) {
      const rate = update.learningRate * (update.learningRateScales?.[name] ?? 1);
      const keep = 1 - rate * update.weightDecay;
      const { shape, data } = await engine.get(name);
      const grown = Float32Array.from(data as Float32Array, (value) => value / keep);
      await engine.set(name, tensor("f32", shape, grown));
    }
    return engine.applyGradients(update);
  };
}
