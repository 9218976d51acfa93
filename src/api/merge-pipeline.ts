import { planImageMerge } from "../adapter/image-merge.ts";
import type { MergedWeight } from "../adapter/merge.ts";
import { type MergeOptions, mergedWeights, refuseMovedBase } from "../host/merged-checkpoint.ts";
import type { PipelineCheckpoint } from "../host/open-pipeline.ts";
import type { SavedModel, SaveOptions } from "../host/save-checkpoint.ts";
import { savePipeline } from "../host/save-pipeline.ts";
import { type UnmergeError, unmergedWeights } from "../host/unmerged-checkpoint.ts";
import type { ImagePipeline } from "./image-pipeline.ts";

/** What `mergePipeline` wrote. */
export interface MergedPipeline extends SavedModel {
  /** Names of the weights that differ from the base's, `unet.…`, `text_encoder.…`. */
  readonly changed: readonly string[];
}

/**
 * Writes the base of `pipeline` with all its adapters merged into it, each times its weight, as a folder in diffusers
 * layout. Each weight is rounded once, to the base's dtype or `dtype`.
 * @throws LorikeetError `adapter-mismatch`, `cannot-merge`, `not-finite`, `output-exists`
 */
export async function mergePipeline(
  pipeline: ImagePipeline,
  outDir: string,
  options: Pick<MergeOptions, "dtype" | "safe"> & SaveOptions = {},
): Promise<MergedPipeline> {
  const { checkpoint } = pipeline;
  for (const { adapter } of pipeline.adapters) refuseMovedBase(adapter);
  const plan = planOf(pipeline);
  const changed = changedBy(plan);
  const weights = mergedWeights(checkpoint.weights, plan, options);
  const rewritten = options.dtype === undefined ? changed : checkpoint.weights.names;
  const saved = await savePipeline({ ...checkpoint, weights }, outDir, new Set(rewritten), options);
  return { ...saved, changed };
}

/**
 * Writes `merged`, a pipeline whose adapters were merged into its weights, without them. `base` is compared with the
 * result where it is given.
 * @throws LorikeetError `cannot-unmerge`, `adapter-mismatch`, `output-exists`
 */
export async function unmergePipeline(
  merged: ImagePipeline,
  outDir: string,
  options: SaveOptions & { readonly base?: PipelineCheckpoint } = {},
): Promise<SavedModel & { readonly errors: readonly UnmergeError[] }> {
  const { checkpoint, adapters } = merged;
  for (const { adapter } of adapters) refuseMovedBase(adapter, "cannot-unmerge");
  const plan = planOf(merged);
  const { weights, errors } = unmergedWeights(checkpoint.weights, plan, options.base?.weights);
  const changed = new Set(changedBy(plan));
  const saved = await savePipeline({ ...checkpoint, weights }, outDir, changed, options);
  return { ...saved, errors };
}

function planOf(pipeline: ImagePipeline): Map<string, MergedWeight> {
  const { checkpoint, adapters } = pipeline;
  const layers = [...pipeline.layers, ...pipeline.idleLayers];
  const { names } = checkpoint.weights;
  const shapeOf = (name: string): readonly number[] => checkpoint.weights.get(name).shape;
  return planImageMerge(adapters, { layers, names, shapeOf });
}

function changedBy(plan: ReadonlyMap<string, MergedWeight>): string[] {
  return [...plan].filter(([, { steps }]) => steps.length > 0).map(([name]) => name);
}
