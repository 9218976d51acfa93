import type { EvaLayer } from "./eva.ts";

/**
 * Ranks by module: as many as the layers had together go to the directions that explain most of their input's variance.
 * Of layers that read the same input, the first gets no fewer than the others. As PEFT does it.
 * @param ratios shares of variance of each direction, by input
 */
export function evaRanks(
  layers: readonly EvaLayer[],
  ratios: ReadonlyMap<string, Float64Array>,
): Map<string, number> {
  const budget = layers.reduce((sum, { rank }) => sum + rank, 0);
  const leaders = new Map<string, string>();
  for (const { module, source } of layers) if (!leaders.has(source)) leaders.set(source, module);
  const isLeader = ({ module, source }: EvaLayer): boolean => leaders.get(source) === module;
  const followers = layers.filter((layer) => !isLeader(layer));
  const ordered = [...layers.filter(isLeader), ...followers];
  // equal shares keep this order
  const shares = ordered
    .flatMap(({ module, source }) =>
      Array.from(ratios.get(source)!, (share) => ({ module, share })),
    )
    .sort((a, b) => b.share - a.share);
  const ranks = new Map(layers.map(({ module }) => [module, 0]));
  for (const { module } of shares.slice(0, budget)) ranks.set(module, ranks.get(module)! + 1);
  for (const { module, source } of followers) {
    const leader = leaders.get(source)!;
    const [own, first] = [ranks.get(module)!, ranks.get(leader)!];
    if (own > first) ranks.set(leader, own).set(module, first);
  }
  return ranks;
}
