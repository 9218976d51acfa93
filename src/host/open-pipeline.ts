import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { WeightSource } from "../backends/backend.ts";
import type { PipelineConfigs } from "../diffusion/pipeline-graphs.ts";
import { type SchedulerConfig, schedulerConfig } from "../diffusion/scheduler-config.ts";
import { LorikeetError } from "../errors.ts";
import { vaeWeightName } from "../models/autoencoder-kl.ts";
import { clipWeightName } from "../models/clip-text.ts";
import type { HfConfig } from "../models/config.ts";
import { openShardedTorch, openTorch } from "./checkpoint-torch.ts";
import { openSafetensors, openShardedSafetensors } from "./checkpoint-weights.ts";
import { type CaptionTokenizer, openCaptionTokenizer } from "./caption-tokenizer.ts";
import { asFileError } from "./file-errors.ts";
import { isFile } from "./files.ts";
import { joinedWeights } from "./joined-weights.ts";
import { openSingleFile } from "./open-single-file.ts";
import { readJson } from "./open-checkpoint.ts";
import { renamedWeights } from "./renamed-weights.ts";

/** A Stable Diffusion pipeline on disk; weights are not read yet. */
export interface PipelineCheckpoint {
  readonly name: string;
  /** The folder or file that it was opened from. */
  readonly path: string;
  readonly configs: PipelineConfigs;
  /** Weights of all models, named `unet.…`, `vae.…`, `text_encoder.…`, `text_encoder_2.…`. */
  readonly weights: WeightSource;
  /** One for each text encoder. */
  readonly tokenizers: readonly CaptionTokenizer[];
  readonly scheduler: SchedulerConfig;
  /** Without a negative prompt the condition is zeros in place of an empty text's: SDXL's base model was trained so. */
  readonly zeroesNegative: boolean;
  /** `scheduler_config.json` as it stands. */
  readonly schedulerJson: Readonly<Record<string, unknown>>;
}

const HINT =
  "Give a diffusers folder (unet, vae, text_encoder, tokenizer, scheduler) or a .safetensors file of Stable Diffusion 1, 2 or XL.";

/**
 * Opens a pipeline: a folder in diffusers layout, or a single `.safetensors` file in the original layout.
 * @throws LorikeetError `file-not-found`, `pipeline-layout` listing what is missing, and what its parts throw
 */
export async function openPipeline(path: string): Promise<PipelineCheckpoint> {
  const info = await stat(path).catch((cause: unknown) => {
    throw asFileError(cause, path, "readable");
  });
  if (info.isDirectory()) return openFolder(path);
  if (path.endsWith(".safetensors")) return openSingleFile(path);
  throw new LorikeetError("pipeline-layout", `Expected an image model, got ${path}`, {
    hint: HINT,
  });
}

async function openFolder(folder: string): Promise<PipelineCheckpoint> {
  const texts = (await isFile(join(folder, "text_encoder_2", "config.json")))
    ? ["text_encoder", "text_encoder_2"]
    : ["text_encoder"];
  const models = ["unet", "vae", ...texts];
  const missing: string[] = [];
  const configs = new Map<string, HfConfig>();
  const sources = new Map<string, WeightSource>();
  for (const model of models) {
    const config = await readJson(join(folder, model, "config.json"));
    const source = await openModelWeights(join(folder, model));
    if (config) configs.set(model, config);
    else missing.push(`${model}/config.json`);
    if (source) sources.set(`${model}.`, renamed(model, source));
    else missing.push(`${model}/*.safetensors`);
  }
  const scheduler = await readJson(join(folder, "scheduler", "scheduler_config.json"));
  if (!scheduler) missing.push("scheduler/scheduler_config.json");
  if (missing.length > 0)
    throw new LorikeetError(
      "pipeline-layout",
      `Expected ${folder} to be a Stable Diffusion model in diffusers layout; it lacks ${missing.join(", ")}`,
      { hint: HINT },
    );
  const index = await readJson(join(folder, "model_index.json"));
  const tokenizers = await Promise.all(
    texts.map((text) =>
      openCaptionTokenizer(
        join(folder, text.replace("text_encoder", "tokenizer")),
        configs.get(text)!,
      ),
    ),
  );
  return {
    name: basename(folder),
    path: folder,
    configs: {
      unet: configs.get("unet")!,
      vae: configs.get("vae")!,
      textEncoders: texts.map((text) => configs.get(text)!),
    },
    weights: joinedWeights(sources),
    tokenizers,
    scheduler: schedulerConfig(scheduler!),
    schedulerJson: scheduler!,
    zeroesNegative: texts.length > 1 && index?.["force_zeros_for_empty_prompt"] !== false,
  };
}

/** The weights in a model's folder, whatever its library called them; undefined when there are none. */
async function openModelWeights(folder: string): Promise<WeightSource | undefined> {
  const names = ["diffusion_pytorch_model", "model", "pytorch_model"];
  for (const name of names)
    for (const variant of ["", ".fp16"])
      for (const [ending, open] of [
        [".safetensors", openSafetensors],
        [".safetensors.index.json", openShardedSafetensors],
        [".bin", openTorch],
        [".bin.index.json", openShardedTorch],
      ] as const) {
        // variants of index files are named model.safetensors.index.fp16.json
        const file = ending.endsWith(".json")
          ? `${name}${ending.replace(/\.json$/, `${variant}.json`)}`
          : `${name}${variant}${ending}`;
        if (await isFile(join(folder, file))) return open(join(folder, file));
      }
  return undefined;
}

function renamed(model: string, source: WeightSource): WeightSource {
  if (model === "vae") return renamedWeights(source, vaeWeightName);
  return model === "unet" ? source : renamedWeights(source, clipWeightName);
}
