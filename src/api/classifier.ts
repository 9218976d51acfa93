import type { Adapter } from "../adapter/adapter.ts";
import { PEFT_PREFIX } from "../adapter/adapter.ts";
import type { Weight, WeightSource } from "../backends/backend.ts";
import type { Checkpoint } from "../host/open-checkpoint.ts";
import { topological } from "../ir/graph.ts";
import type { HfConfig } from "../models/config.ts";
import { labelCount } from "../models/encoder.ts";
import { loraTargets } from "../models/lora-targets.ts";
import { isFrozen } from "../ops/leaf.ts";
import { Random } from "../tensor/random.ts";
import { sameShape, type Shape, sizeOf } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { isEncoder, plainLogits } from "../train/text-model.ts";

/** Names of the classes of the classifier that `config` describes, by number. */
export function labelNames(config: HfConfig): string[] {
  const names = (config["id2label"] ?? {}) as Readonly<Record<string, string>>;
  return Array.from({ length: labelCount(config) }, (_, id) => names[id] ?? `LABEL_${id}`);
}

/** `config` for the classes `labels`. */
export function withLabels(config: HfConfig, labels: readonly string[]): HfConfig {
  return {
    ...config,
    num_labels: labels.length,
    id2label: Object.fromEntries(labels.entries()),
    label2id: Object.fromEntries(labels.map((label, id) => [label, id])),
  };
}

/** `config` for as many classes as the head in `adapter` tells apart, where it holds one. */
export function withLabelsOf(config: HfConfig, adapter: Adapter): HfConfig {
  if (!isEncoder(config)) return config;
  const { head } = loraTargets(String(config["model_type"]));
  const own = [...adapter.tensors.keys()].filter(
    (key) => key.startsWith(`${PEFT_PREFIX}${head}.`) && /(?<!lora_[AB])\.weight$/.test(key),
  );
  // a head of several layers ends in out_proj
  const count = adapter.tensors.get(own.sort().at(-1) ?? "")?.shape[0] ?? labelCount(config);
  if (count === labelCount(config)) return config;
  return withLabels(
    config,
    Array.from({ length: count }, (_, id) => `LABEL_${id}`),
  );
}

/**
 * The weights of an encoder with a head for its classes: that of the checkpoint, or where it has none of that size a
 * new one, as transformers starts it: N(0, initializer_range), biases zero.
 */
export function withHead({
  config,
  weights,
}: Pick<Checkpoint, "config" | "weights">): WeightSource {
  if (!isEncoder(config)) return weights;
  const { head } = loraTargets(String(config["model_type"]));
  const present = new Set(weights.names);
  const fresh = new Map<string, Shape>();
  for (const { name, shape } of topological([plainLogits(config, { batch: 1, length: 1 })]).filter(
    isFrozen,
  ))
    // prettier-ignore
    if (name!.startsWith(`${head}.`))
      if (!present.has(name!) || !sameShape(weights.get(name!).shape, shape)) fresh.set(name!, shape);
  if (fresh.size === 0) return weights;
  const spread = Number(config["initializer_range"] ?? 0.02);
  return {
    names: [...new Set([...weights.names, ...fresh.keys()])],
    get(name): Weight {
      const shape = fresh.get(name);
      return shape ? { dtype: "f32", shape, bytes: { kind: "computed" } } : weights.get(name);
    },
    read: async (name) => {
      const shape = fresh.get(name);
      return shape ? drawn(name, shape, spread) : weights.read(name);
    },
  };
}

function drawn(name: string, shape: Shape, spread: number): Tensor {
  const random = new Random(0).fork(name);
  const isBias = name.endsWith(".bias");
  const draw = (): number => (isBias ? 0 : spread * random.normal());
  return tensor("f32", shape, Float32Array.from({ length: sizeOf(shape) }, draw));
}
