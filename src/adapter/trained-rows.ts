import type { LoraConfig } from "./lora-config.ts";
import { matchesModule } from "./targets.ts";

/** Rows of the embedding `module` that train (`trainable_token_indices`). */
export function trainedRows(config: LoraConfig, module: string): readonly number[] {
  const indices = config.trainableTokenIndices ?? [];
  if (Array.isArray(indices)) return indices as readonly number[];
  const named = indices as Readonly<Record<string, readonly number[]>>;
  const key = Object.keys(named).find((name) => matchesModule([name], module));
  return key === undefined ? [] : named[key]!;
}
