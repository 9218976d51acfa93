import type { Adapter } from "../adapter/adapter.ts";
import { exportDecoder } from "../backends/onnx/export-decoder.ts";
import { encodeModel, encodeModelInParts, type OnnxModel } from "../backends/onnx/proto.ts";
import { chatStops } from "../data/chat-stops.ts";
import { mergedCheckpoint, type MergeOptions } from "../host/merged-checkpoint.ts";
import type { Checkpoint } from "../host/open-checkpoint.ts";
import type { SavedModel } from "../host/save-checkpoint.ts";
import { type OnnxParts, type OnnxSaveOptions, saveOnnx } from "../host/save-onnx.ts";
import type { HfConfig } from "../models/config.ts";
import { causalLM } from "../models/registry.ts";
import type { MergeResult } from "./merge.ts";
import type { Model } from "./model.ts";
import { plainAdapter } from "./plain-adapter.ts";

/**
 * Writes `model`'s base with `adapter` merged into it as an ONNX folder that Transformers.js runs.
 * @throws LorikeetError as `merge`, and `unsupported-onnx`
 */
export async function mergeToOnnx(
  model: Model,
  adapter: Adapter,
  outDir: string,
  options: Omit<MergeOptions, "dtype"> & OnnxSaveOptions = {},
): Promise<MergeResult> {
  const { layers, family, checkpoint } = model;
  const base = { layers, head: family.head };
  // rounded once, to the file's type
  const plain = await plainAdapter(adapter, model);
  const merged = await mergedCheckpoint(checkpoint, plain, base, { ...options, dtype: "f32" });
  const saved = await saveOnnx(
    withinContext(merged),
    outDir,
    partsOf(model, merged, options),
    options,
  );
  return { ...saved, changed: merged.changed, unties: merged.unties };
}

/**
 * Writes a base model as an ONNX folder that Transformers.js runs: `onnx/model.onnx` with a key/value cache, for
 * batches and prompts of any size, config and tokenizer. With LongRoPE the context is the one of its short factors.
 * @throws LorikeetError `output-exists`, `unsupported-onnx`
 */
export async function exportOnnx(
  model: Model,
  outDir: string,
  options: OnnxSaveOptions = {},
): Promise<SavedModel> {
  const { checkpoint } = model;
  return saveOnnx(withinContext(checkpoint), outDir, partsOf(model, checkpoint, options), options);
}

/** LongRoPE turns positions otherwise in longer texts; one graph holds for the context that the model began with. */
function withinContext(checkpoint: Checkpoint): Checkpoint {
  const { config } = checkpoint;
  const scaling = (config["rope_parameters"] ?? config["rope_scaling"] ?? {}) as HfConfig;
  const context = scaling["original_max_position_embeddings"] ?? config["original_max_position_embeddings"]; // prettier-ignore
  if (scaling["long_factor"] === undefined || context === undefined) return checkpoint;
  return { ...checkpoint, config: { ...config, max_position_embeddings: context } };
}

function partsOf(
  base: Model,
  { config }: Checkpoint,
  { dtype = "f32" }: OnnxSaveOptions,
): OnnxParts {
  const { model, weights } = exportDecoder(
    (size) => causalLM(config, { ...size, keepsCache: true }),
    dtype,
  );
  return {
    weights,
    stopIds: stopsOf(base),
    encode(read, places) {
      if (!places) return encodeModelInParts(model, weights, read);
      const outside = weights.map((weight) => ({ ...weight, data: places.get(weight.name)! }));
      return once({ ...model, initializers: [...model.initializers, ...outside] });
    },
  };
}

/** Tokens that end an answer: in a chat where the model has a template, else in a text. */
function stopsOf(model: Model): readonly number[] {
  const { checkpoint } = model;
  if (checkpoint.tokenizer === undefined) return [];
  if (checkpoint.chatTemplate === undefined) return model.tokenizer.specials.stopIds;
  return chatStops(model.chatTemplate, model.tokenizer).ids;
}

async function* once(model: OnnxModel): AsyncGenerator<Uint8Array, void, undefined> {
  yield await Promise.resolve(encodeModel(model));
}
