import type { WeightSource } from "../backends/backend.ts";
import type { Node } from "../ir/node.ts";
import { type LoraCandidate, loraCandidates } from "../passes/lora.ts";
import { weightsByUse } from "../passes/replace-weights.ts";
import type { FamilyTargets } from "./targets.ts";

/** What an adapter needs to know of the model that it is made for. */
export interface AdapterBase {
  readonly layers: readonly LoraCandidate[];
  readonly family: FamilyTargets;
  /**
   * Names of the stored weights by the name that each use of them has in its module: where the head shares the
   * embedding's matrix, `lm_head.weight` is that of the embedding.
   */
  readonly uses: ReadonlyMap<string, string>;
  readonly weights: WeightSource;
}

/** What the model with the results `roots` is to an adapter. */
export function adapterBase(
  roots: readonly Node[],
  family: FamilyTargets,
  weights: WeightSource,
): AdapterBase {
  const uses = new Map([...weightsByUse(roots)].map(([use, { name }]) => [use, name!]));
  return { layers: loraCandidates(roots), family, uses, weights };
}

/** The embedding whose matrix the output head shares, or undefined. */
export function tiedEmbedding({
  layers,
  family: { head },
}: Pick<AdapterBase, "layers" | "family">): string | undefined {
  const shared = layers.find(({ module }) => module === head)?.weight;
  if (shared === undefined || shared === `${head}.weight`) return undefined;
  return layers.find(({ weight, module }) => weight === shared && module !== head)?.module;
}

/** The module that token ids enter: the embedding of the most rows. */
export function tokenEmbedding({ layers }: Pick<AdapterBase, "layers">): string | undefined {
  const tables = layers.filter(({ kind }) => kind === "embedding");
  return tables.toSorted((a, b) => b.inFeatures - a.inFeatures)[0]?.module;
}
