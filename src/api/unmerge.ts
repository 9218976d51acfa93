import type { Adapter } from "../adapter/adapter.ts";
import { refuseNonFinite } from "../adapter/finite.ts";
import { refuseMovedBase } from "../host/merged-checkpoint.ts";
import { saveCheckpoint, type SavedModel, type SaveOptions } from "../host/save-checkpoint.ts";
import { type UnmergeError, unmergedCheckpoint } from "../host/unmerged-checkpoint.ts";
import type { Model } from "./model.ts";

/** What `unmerge` wrote, and how exact it is. */
export interface UnmergeResult extends SavedModel {
  readonly errors: readonly UnmergeError[];
}

/**
 * Writes `merged` with `adapter` taken out again as a Hugging Face folder: the base within two roundings of the
 * dtype. `base` is compared with the result where it is given.
 * @throws LorikeetError `cannot-unmerge`, `adapter-mismatch`, `not-finite`, `output-exists`
 */
export async function unmerge(
  merged: Model,
  adapter: Adapter,
  outDir: string,
  options: SaveOptions & { readonly base?: Model } = {},
): Promise<UnmergeResult> {
  refuseNonFinite(adapter);
  refuseMovedBase(adapter, "cannot-unmerge");
  const { checkpoint, layers, family } = merged;
  const model = { layers, head: family.head };
  const result = unmergedCheckpoint(checkpoint, adapter, model, options.base?.checkpoint.weights);
  const saved = await saveCheckpoint(result, outDir, options);
  return { ...saved, errors: result.errors };
}
