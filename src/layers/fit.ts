import type { WeightSource } from "../backends/backend.ts";
import { referenceEngine } from "../backends/reference/engine.ts";
import { LorikeetError } from "../errors.ts";
import { topological } from "../ir/graph.ts";
import { input, isTrainable } from "../ops/leaf.ts";
import { mean } from "../ops/mean.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { sub } from "../ops/sub.ts";
import { gradient } from "../passes/gradient.ts";
import { convert } from "../tensor/convert.ts";
import { formatShape, sameShape, sizeOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { LoraLayer } from "./lora-layer.ts";

/** How a layer is fitted. */
export interface FitOptions {
  /** Steps over all of the data; 100 by default. */
  readonly steps?: number;
  /** 1e-2 by default. */
  readonly learningRate?: number;
  readonly weightDecay?: number;
}

/**
 * Trains the adapter of `layer` on pairs x → y by AdamW on the mean squared error, with the autodiff and the
 * optimizer of whole models; the base stays as it is.
 * @returns the loss before each step
 * @throws LorikeetError `shape` when y is not of the layer's result's shape, `already-merged`, `nothing-to-train` for rank 0,
 * `embedding-id`, `non-finite-loss`; the layer then stays as it was
 */
export async function fit(
  layer: LoraLayer,
  { x, y }: { x: Tensor; y: Tensor },
  { steps = 100, learningRate = 1e-2, weightDecay = 0 }: FitOptions = {},
): Promise<number[]> {
  refuseUntrainable(layer);
  const { node, feeds } = layer.graph(x);
  if (!sameShape(node.shape, y.shape))
    throw new LorikeetError(
      "shape",
      `Expected y of the layer's result's shape ${formatShape(node.shape)}, got ${formatShape(y.shape)}`,
    );
  const error = sub(node, input("y", y.shape));
  const flat = reshape(mul(error, error), { shape: [sizeOf(y.shape)] });
  const params = topological([node]).filter(isTrainable);
  const { loss, gradients } = gradient(mean(flat, { axes: [0] }), params);
  const named = Object.fromEntries(params.map(({ name }, i) => [name!, gradients[i]!]));
  const engine = referenceEngine(memoryWeights(feeds));
  for (const { name } of params) await engine.set(name!, feeds[name!]!);
  const program = await engine.compile({ outputs: { loss }, gradients: named });
  const losses: number[] = [];
  for (let step = 1; step <= steps; step++) {
    const seed = layer.seeds && { dropout_seed: layer.nextSeed() };
    const result = await program.run({ x, y, ...seed });
    const value = Number(result["loss"]!.data[0]);
    if (!Number.isFinite(value))
      throw new LorikeetError(
        "non-finite-loss",
        `Expected a finite loss, got ${value} in step ${step}`,
        {
          hint: "Lower the learning rate, or look for NaN in x, y and the base.",
        },
      );
    losses.push(value);
    const rates = { learningRate, weightDecay, betas: [0.9, 0.999] as const, eps: 1e-8 };
    await engine.applyGradients({ step, ...rates, maxGradNorm: Infinity });
  }
  for (const { name } of params)
    layer
      .trainableParameters()
      .get(name!)!
      .data.set(convert(await engine.get(name!), "f32").data as never);
  await engine.dispose();
  return losses;
}

function refuseUntrainable(layer: LoraLayer): void {
  if (layer.isMerged)
    throw new LorikeetError(
      "already-merged",
      "Expected a layer that is not merged, got a merged one",
      {
        hint: "Call unmerge() first.",
      },
    );
  if (layer.trainableParameters().size === 0)
    throw new LorikeetError(
      "nothing-to-train",
      "Expected a layer with an adapter to train, got one of rank 0",
      {
        hint: "Make the layer with r of at least 1.",
      },
    );
}

function memoryWeights(tensors: Readonly<Record<string, Tensor>>): WeightSource {
  return {
    names: Object.keys(tensors),
    get(name) {
      const value = tensors[name]!;
      return { dtype: value.dtype, shape: value.shape, bytes: { kind: "memory", tensor: value } };
    },
    read: (name) => Promise.resolve(tensors[name]!),
  };
}
