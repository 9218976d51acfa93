import type { Adapter } from "../adapter/adapter.ts";
import { mergedCheckpoint, type MergeOptions } from "../host/merged-checkpoint.ts";
import { saveCheckpoint, type SavedModel, type SaveOptions } from "../host/save-checkpoint.ts";
import { type GgufSaveOptions, saveGguf, storedType } from "../host/save-gguf.ts";
import type { Model } from "./model.ts";
import { plainAdapter } from "./plain-adapter.ts";

/** What `merge` wrote. */
export interface MergeResult extends SavedModel {
  /** Names of the weights that differ from the base's. */
  readonly changed: readonly string[];
  /** Embedding and head were one matrix in the base and are two now. */
  readonly unties: boolean;
}

/**
 * Writes `model`'s base with `adapter` merged into it as a Hugging Face folder, weight by weight: W + scale·B·A (or
 * DoRA's form), rounded once to the base's dtype. Nothing is left behind on an error.
 * @throws LorikeetError `quantized-base`, `adapter-mismatch`, `cannot-merge`, `plain-lora`, `not-finite`,
 * `output-exists`
 */
export async function merge(
  model: Model,
  adapter: Adapter,
  outDir: string,
  options: MergeOptions & SaveOptions = {},
): Promise<MergeResult> {
  const { layers, family } = model;
  const merged = await mergedCheckpoint(
    model.checkpoint,
    await plainAdapter(adapter, model),
    { layers, head: family.head },
    options,
  );
  const saved = await saveCheckpoint(merged, outDir, options);
  return { ...saved, changed: merged.changed, unties: merged.unties };
}

/**
 * Writes `model`'s base with `adapter` merged into it as a GGUF file for llama.cpp, with an Ollama Modelfile.
 * @throws LorikeetError as `merge`, and `unsupported-gguf`, `unsupported-tokenizer`
 */
export async function mergeToGguf(
  model: Model,
  adapter: Adapter,
  outDir: string,
  options: MergeOptions & GgufSaveOptions = {},
): Promise<MergeResult> {
  const { layers, family, checkpoint } = model;
  const base = { layers, head: family.head };
  // rounded once, to the file's type
  const plain = await plainAdapter(adapter, model);
  const merged = await mergedCheckpoint(checkpoint, plain, base, { ...options, dtype: "f32" });
  const type = options.type ?? (await storedType(checkpoint));
  const saved = await saveGguf(merged, outDir, { ...options, type });
  return { ...saved, changed: merged.changed, unties: merged.unties };
}

/**
 * Writes a base model as a GGUF file for llama.cpp, with an Ollama Modelfile.
 * @throws LorikeetError `output-exists`, `unsupported-gguf`, `unsupported-tokenizer`
 */
export async function exportGguf(
  model: Model,
  outDir: string,
  options: GgufSaveOptions = {},
): Promise<SavedModel> {
  return saveGguf(model.checkpoint, outDir, options);
}
