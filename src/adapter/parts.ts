import type { LoraCandidate, LoraSite } from "../passes/lora.ts";
import type { Shape } from "../tensor/shape.ts";

/** Names of A and B in adapter files, after the module's. */
export function factorNames(
  { kind }: LoraCandidate,
  { isParameter }: LoraSite,
): { a: string; b: string } {
  return kind === "embedding" && !isParameter
    ? { a: "lora_embedding_A", b: "lora_embedding_B" }
    : { a: "lora_A.weight", b: "lora_B.weight" };
}

/** Shape of every tensor of an adapted layer, by its name after the module's, as PEFT saves them. */
export function partShapes(candidate: LoraCandidate, site: LoraSite): Record<string, Shape> {
  const { kernel, groups, inFeatures, outFeatures } = candidate;
  const { a, b } = factorNames(candidate, site);
  if (site.isParameter) {
    const [n, m] = isTransposed(candidate) ? [inFeatures, outFeatures] : [outFeatures, inFeatures];
    return { [a]: [site.rank, m], [b]: [n, site.rank] };
  }
  const ones = kernel.map(() => 1);
  return {
    [a]: [site.rank, inFeatures, ...kernel],
    [b]: [outFeatures, site.rank / groups, ...ones],
    ...(site.loraBias && { "lora_B.bias": [outFeatures] }),
    ...(site.useDora && {
      lora_magnitude_vector: kernel.length > 0 ? [1, outFeatures, ...ones] : [outFeatures],
    }),
  };
}

/** Whether the layer's weight is stored (in, out). */
export function isTransposed({ kind, fanInFanOut }: LoraCandidate): boolean {
  return kind === "embedding" || fanInFanOut;
}
