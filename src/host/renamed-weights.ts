import type { WeightSource } from "../backends/backend.ts";

/** `source` with each of its weights under the name that `rename` gives it. */
export function renamedWeights(
  source: WeightSource,
  rename: (stored: string) => string,
): WeightSource {
  const stored = new Map(source.names.map((name) => [rename(name), name]));
  const originalOf = (name: string): string => stored.get(name) ?? name;
  return {
    names: [...stored.keys()],
    get: (name) => source.get(originalOf(name)),
    read: (name) => source.read(originalOf(name)),
  };
}
