import type { WeightSource } from "../backends/backend.ts";
import { missingWeight } from "./checkpoint-weights.ts";

/** Several sources as one: the weights of each under its prefix (`unet.`). */
export function joinedWeights(sources: ReadonlyMap<string, WeightSource>): WeightSource {
  const found = new Map<string, { source: WeightSource; own: string }>();
  for (const [prefix, source] of sources)
    for (const own of source.names) found.set(prefix + own, { source, own });
  const find = (name: string): { source: WeightSource; own: string } =>
    found.get(name) ?? missingWeight(name, found, [...sources.keys()].join(" "));
  return {
    names: [...found.keys()],
    get(name) {
      const { source, own } = find(name);
      return source.get(own);
    },
    read(name) {
      const { source, own } = find(name);
      return source.read(own);
    },
  };
}
