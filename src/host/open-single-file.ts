import { basename, dirname, join } from "node:path";
import type { Weight, WeightSource } from "../backends/backend.ts";
import { type KnownModel, knownConfigs, knownScheduler } from "../diffusion/known-configs.ts";
import type { PipelineConfigs } from "../diffusion/pipeline-graphs.ts";
import { schedulerConfig } from "../diffusion/scheduler-config.ts";
import { LorikeetError } from "../errors.ts";
import { type OpenClipPlace, openClipPlace } from "../formats/stable-diffusion/open-clip-names.ts";
import { toOriginalUnetName, unetLayout } from "../formats/stable-diffusion/unet-names.ts";
import { toOriginalVaeName } from "../formats/stable-diffusion/vae-names.ts";
import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { isFrozen } from "../ops/leaf.ts";
import { convert, toFloat32 } from "../tensor/convert.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { openSafetensors } from "./checkpoint-weights.ts";
import { missingWeight } from "./checkpoint-weights.ts";
import type { PipelineCheckpoint } from "./open-pipeline.ts";
import { openCaptionTokenizer } from "./caption-tokenizer.ts";
import { idleRoots, pipelineRoots } from "../diffusion/pipeline-graphs.ts";

/** What a single file cannot tell, for models that are none of the published ones. */
export interface SingleFileOptions {
  readonly configs?: PipelineConfigs;
  /** Folder of the tokenizer; `tokenizer` beside the file by default. */
  readonly tokenizer?: string;
}

const UNET = "model.diffusion_model.";
const VAE = "first_stage_model.";

/**
 * Opens a checkpoint in the original layout of Stable Diffusion 1, 2 or XL: all models in one `.safetensors` file, under
 * other names. Its tokenizer is the folder `tokenizer` beside it.
 * @throws LorikeetError `pipeline-layout` when it is none of these; `no-tokenizer`
 */
export async function openSingleFile(
  path: string,
  options: SingleFileOptions = {},
): Promise<PipelineCheckpoint> {
  const source = await openSafetensors(path);
  const model = modelOf(source.names, path);
  const configs = options.configs ?? knownConfigs(model);
  const texts = textPrefixes(model);
  const weights = originalWeights(source, configs, texts, path);
  const folder = options.tokenizer ?? join(dirname(path), "tokenizer");
  const tokenizers = await Promise.all(
    configs.textEncoders.map((config, i) =>
      // the second encoder of SDXL fills captions up with token 0
      openCaptionTokenizer(folder, config, i === 1 ? { padId: 0 } : {}),
    ),
  );
  const prediction = model === "sd2" && !(await isSd2Base(source)) ? "v_prediction" : "epsilon";
  const schedulerJson = knownScheduler(model, prediction);
  return {
    name: basename(path, ".safetensors"),
    path,
    configs,
    weights,
    tokenizers,
    scheduler: schedulerConfig(schedulerJson),
    schedulerJson,
    zeroesNegative: model === "sdxl",
  };
}

function modelOf(names: readonly string[], path: string): KnownModel {
  const has = (name: string): boolean => names.includes(name);
  if (has(`${UNET}conv_in.weight`) || has(`${UNET}input_blocks.0.0.weight`)) {
    if (has("conditioner.embedders.1.model.ln_final.weight")) return "sdxl";
    if (has("cond_stage_model.model.ln_final.weight")) return "sd2";
    const clip = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight";
    if (has(clip)) return "sd1";
  }
  throw new LorikeetError(
    "pipeline-layout",
    `Expected ${path} to hold UNet, autoencoder and text encoder of Stable Diffusion 1, 2 or XL, got weights such as ${names.slice(0, 3).join(", ")}`,
    { hint: "LoRA files are given with --adapter; refiners, FLUX and SD 3 are not supported." },
  );
}

/** How text encoders' weights begin, and whether they have OpenCLIP's names. */
function textPrefixes(model: KnownModel): readonly (readonly [string, boolean])[] {
  if (model === "sd1") return [["cond_stage_model.transformer.", false]];
  if (model === "sd2") return [["cond_stage_model.model.", true]];
  return [
    ["conditioner.embedders.0.transformer.", false],
    ["conditioner.embedders.1.model.", true],
  ];
}

/** The step that the model was saved at tells SD 2's base model, which predicts noise, from the final one. */
async function isSd2Base(source: WeightSource): Promise<boolean> {
  if (!source.names.includes("global_step")) return false;
  return Number((await source.read("global_step")).data[0]) === 875000;
}

/** Where a weight is in the file, and how it lies there. */
interface Place extends OpenClipPlace {
  readonly shape: readonly number[];
}

function originalWeights(
  source: WeightSource,
  configs: PipelineConfigs,
  texts: readonly (readonly [string, boolean])[],
  path: string,
): WeightSource {
  const present = new Set(source.names);
  const places = new Map<string, Place>();
  for (const { name, shape } of wanted(configs)) {
    const place = placeOf(name!, configs, texts);
    if (place && present.has(place.name)) places.set(name!, { ...place, shape });
  }
  const find = (name: string): Place => places.get(name) ?? missingWeight(name, places, path);
  const part = ({ name, third, isTransposed, shape }: Place): Weight => {
    const stored = source.get(name);
    if (isTransposed || stored.bytes.kind !== "file")
      return { dtype: stored.dtype, shape, bytes: { kind: "computed" } };
    if (third === undefined) return { ...stored, shape };
    const length = stored.bytes.length / 3;
    const offset = stored.bytes.offset + third * length;
    return { dtype: stored.dtype, shape, bytes: { ...stored.bytes, offset, length } };
  };
  return {
    names: [...places.keys()],
    get: (name) => part(find(name)),
    async read(name) {
      const place = find(name);
      return pieceOf(await source.read(place.name), place);
    },
  };
}

function wanted(configs: PipelineConfigs): Node[] {
  const leaves = topological([...pipelineRoots(configs), ...idleRoots(configs)]).filter(isFrozen);
  return [...new Map(leaves.map((leaf) => [leaf.name!, leaf])).values()];
}

function placeOf(
  name: string,
  { unet, vae }: PipelineConfigs,
  texts: readonly (readonly [string, boolean])[],
): OpenClipPlace | undefined {
  const [, model, own] = /^(unet|vae|text_encoder|text_encoder_2)\.(.+)$/.exec(name) ?? [];
  if (model === "unet") return { name: UNET + toOriginalUnetName(own!, unetLayout(unet)) };
  const levels = (vae["block_out_channels"] as readonly number[]).length;
  if (model === "vae") return { name: VAE + toOriginalVaeName(own!, levels) };
  const [prefix, isOpenClip] = texts[model === "text_encoder_2" ? 1 : 0]!;
  if (!isOpenClip) return { name: prefix + own! };
  const place = openClipPlace(own!);
  return place && { ...place, name: prefix + place.name };
}

function pieceOf(stored: Tensor, { third, isTransposed, shape }: Place): Tensor {
  if (isTransposed) {
    const [rows, columns] = stored.shape as [number, number];
    const values = toFloat32(stored);
    const out = new Float32Array(values.length);
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j]!;
    return convert(tensor("f32", shape, out), stored.dtype);
  }
  if (third === undefined) return tensor(stored.dtype, shape, stored.data);
  const size = stored.data.length / 3;
  return tensor(stored.dtype, shape, stored.data.slice(third * size, (third + 1) * size));
}
