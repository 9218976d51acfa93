import type { Adapter } from "../adapter/adapter.ts";
import { loadModel, type LoadOptions } from "../api/load-model.ts";
import type { Model } from "../api/model.ts";
import { LorikeetError } from "../errors.ts";
import { loadAnyAdapter } from "../host/adapter-formats.ts";

/**
 * The base model of `adapter`: `given`, or the one that its configuration names.
 * @throws LorikeetError `missing-base` when neither names one, and what opening it throws
 */
export async function loadBase(
  { config }: Pick<Adapter, "config">,
  given: string | undefined,
  options: LoadOptions = {},
): Promise<Model> {
  if (given !== undefined) return loadModel(given, options);
  if (config.baseModel === undefined)
    throw new LorikeetError(
      "missing-base",
      "Expected the base model that the adapter belongs to; its configuration names none",
      { hint: "Add --model." },
    );
  try {
    return await loadModel(config.baseModel, options);
  } catch (cause) {
    if (!(cause instanceof LorikeetError) || cause.code !== "file-not-found") throw cause;
    throw new LorikeetError(cause.code, cause.message, {
      hint: "The adapter names this base (base_model_name_or_path in adapter_config.json); say where it is with --model.",
      cause,
    });
  }
}

/**
 * The adapter that `reference` names (a folder of PEFT or mlx-lm, a GGUF file, a hub id), and its base: `given`, or the one
 * that its configuration names.
 * @throws LorikeetError what `loadAnyAdapter` and `loadBase` throw
 */
export async function loadWithBase(
  reference: string,
  given: string | undefined,
  options: LoadOptions = {},
): Promise<{ adapter: Adapter; base: Model }> {
  if (given !== undefined) {
    const base = await loadModel(given, options);
    return { base, adapter: await loadAnyAdapter(reference, base.checkpoint.config, options) };
  }
  const adapter = await loadAnyAdapter(reference, undefined, options);
  return { adapter, base: await loadBase(adapter, undefined, options) };
}
