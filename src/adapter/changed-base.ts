import type { Weight, WeightSource } from "../backends/backend.ts";
import type { LoraCandidate, LoraSite } from "../passes/lora.ts";
import { convert } from "../tensor/convert.ts";
import { type Adapter, peftKey } from "./adapter.ts";
import { changesBase, initialPart } from "./init/initial-part.ts";

/**
 * The base weights that `adapter` stands on: where its initialisation took a product out of the base (PiSSA, OLoRA), it
 * is taken out again, as PEFT does when it loads such an adapter. A weight is computed when it is read.
 */
export function changedBase(
  base: WeightSource,
  { config }: Adapter,
  { layers, sites }: { layers: readonly LoraCandidate[]; sites: ReadonlyMap<string, LoraSite> },
): WeightSource {
  if (!changesBase(config.init)) return base;
  const changed = new Map(
    layers
      .filter(({ module }) => sites.has(module))
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
      const stored = await base.read(name);
      const candidate = changed.get(name);
      if (!candidate) return stored;
      const nameOf = (part: string): string => peftKey(candidate.module, part);
      const site = sites.get(candidate.module)!;
      const weight = convert(stored, "f32");
      return initialPart(config, { candidate, site, weight, seed: 0, nameOf }).base ?? weight;
    },
  };
}
