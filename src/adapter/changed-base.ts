import type { Weight, WeightSource } from "../backends/backend.ts";
import type { LoraCandidate, LoraSite } from "../passes/lora.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Adapter, peftKey } from "./adapter.ts";
import {
  changesBase,
  initialPart,
  type InitTarget,
  loftqBase,
  weightWithout,
} from "./init/initial-part.ts";

/** The layers of a base and which of them an adapter has. */
export interface AdaptedLayers {
  readonly layers: readonly LoraCandidate[];
  readonly sites: ReadonlyMap<string, LoraSite>;
}

/**
 * The base weights that `adapter` stands on: where its initialisation changed the base (PiSSA, OLoRA, LoftQ), it is
 * changed again, as PEFT does when it loads such an adapter. A weight is computed when it is read.
 */
export function changedBase(
  base: WeightSource,
  adapter: Adapter,
  { layers, sites }: AdaptedLayers,
): WeightSource {
  if (!changesBase(adapter.config.init)) return base;
  const changed = new Map(
    layers
      .filter(({ module, kind }) => sites.has(module) && kind !== "embedding")
      .map((candidate) => [candidate.weight, candidate]),
  );
  return {
    names: base.names,
    get(name): Weight {
      const stored = base.get(name);
      if (!changed.has(name)) return stored;
      return { dtype: "f32", shape: stored.shape, bytes: { kind: "computed" } };
    },
    async read(name) {
      const weight = await base.read(name);
      const candidate = changed.get(name);
      if (!candidate) return weight;
      return changedWeight(adapter, targetOf(candidate, sites.get(candidate.module)!, weight));
    },
  };
}

/**
 * What the layers of `adapter` started with, by key of the adapter's file: A and B of each, computed from the base again
 * unless the adapter knows them still.
 */
export async function startOf(
  base: WeightSource,
  { config, start }: Adapter,
  { layers, sites }: AdaptedLayers,
): Promise<ReadonlyMap<string, Tensor>> {
  if (start) return start;
  const tensors = new Map<string, Tensor>();
  for (const candidate of layers) {
    const site = sites.get(candidate.module);
    if (!site) continue;
    const target = targetOf(candidate, site, await base.read(candidate.weight));
    for (const [part, value] of Object.entries(initialPart(config, target).tensors))
      tensors.set(target.nameOf(part), value);
  }
  return tensors;
}

function changedWeight({ config, start }: Adapter, target: InitTarget): Tensor {
  if (config.init === "loftq") return loftqBase(config, target);
  const a = start?.get(target.nameOf("lora_A.weight"));
  const b = start?.get(target.nameOf("lora_B.weight"));
  if (a && b) return weightWithout(target, { a, b });
  return initialPart(config, target).base!;
}

function targetOf(candidate: LoraCandidate, site: LoraSite, weight: Tensor): InitTarget {
  const nameOf = (part: string): string => peftKey(candidate.module, part);
  return { candidate, site, weight, seed: 0, nameOf };
}
