import { join } from "node:path";
import type { DataWarning } from "../data/data-warnings.ts";
import { imageSizes } from "../data/image-sizes.ts";
import { noiseSchedule } from "../diffusion/noise-schedule.ts";
import type { NoiseSettings } from "../diffusion/noisy-batch.ts";
import { type CaptionedFile, readImageFolders } from "../host/image-folder.ts";
import type { TrainConfig } from "../host/train-config.ts";
import { vaeFactor } from "../models/autoencoder-kl.ts";
import type { Batch } from "../train/setup.ts";
import { classImages } from "./class-images.ts";
import { imageEvaluation, imageLoader } from "./image-batches.ts";
import { encodeImages, splitImages } from "./image-data.ts";
import type { ImagePipeline } from "./image-pipeline.ts";
import type { ImageSession } from "./image-session.ts";
import { checkSize } from "./imagine.ts";
import type { ResolvedRun } from "./train-options.ts";
import { type TaskData, windowsOf } from "./train-task.ts";

/** The files that a run reads. */
export interface TrainingFiles {
  readonly train: readonly CaptionedFile[];
  readonly held: readonly CaptionedFile[];
  /** For prior preservation. */
  readonly prior: readonly CaptionedFile[];
}

/** What `openImageData` is told. */
export interface ImageDataOptions {
  readonly pipeline: ImagePipeline;
  readonly config: TrainConfig;
  readonly files: TrainingFiles;
  /** Whether captions are encoded anew in each step, as their encoder changes. */
  readonly trainsText: boolean;
}

/** The captioned files of a run. @throws LorikeetError `file-not-found`, `no-images`, `image-captions` */
export async function captionedFiles({
  data,
  eval_data: held,
  instance_prompt: fallback,
}: TrainConfig): Promise<Omit<TrainingFiles, "prior">> {
  return {
    train: await readImageFolders(data, fallback),
    held: held.length > 0 ? await readImageFolders(held, fallback) : [],
  };
}

/** The images of a run's class; those that are missing are made. */
export async function priorFiles(
  pipeline: ImagePipeline,
  { config, outputDir }: ResolvedRun,
): Promise<CaptionedFile[]> {
  const folder = join(outputDir ?? config.output_dir, "class-images");
  const resolution = resolutionOf(pipeline, config);
  return classImages(pipeline, { ...config, resolution }, folder);
}

/** Side of the training images in pixels. @throws LorikeetError `image-size` */
export function resolutionOf(
  { checkpoint: { configs } }: ImagePipeline,
  { resolution }: TrainConfig,
): number {
  const factor = vaeFactor(configs.vae);
  const side = resolution ?? factor * Number(configs.unet["sample_size"] ?? 64);
  checkSize(side, side, factor);
  return side;
}

/**
 * Encodes the images and captions of a run, once.
 * @throws LorikeetError `no-images`, `non-finite-latents`, `data-split`
 */
export async function openImageData(
  session: ImageSession,
  { pipeline, config, files, trainsText }: ImageDataOptions,
): Promise<TaskData & { readonly warnings: readonly DataWarning[] }> {
  const unit = Math.max(8, vaeFactor(pipeline.checkpoint.configs.vae));
  const keepsAspect = config.aspect_buckets;
  const sizes = imageSizes(resolutionOf(pipeline, config), { unit, keepsAspect });
  const read = (
    part: readonly CaptionedFile[],
    flips: boolean,
  ): ReturnType<typeof encodeImages> | { images: []; warnings: [] } =>
    part.length > 0 ? encodeImages(session, part, { sizes, flips }) : { images: [], warnings: [] };
  const all = await read(files.train, config.random_flip);
  const other = await read(files.held, false);
  const prior = await read(files.prior, config.random_flip);
  const { train, held } = splitImages(all.images, config.validation_split, config.seed);
  const captions = [...all.images, ...other.images, ...prior.images].map(
    ({ file }) => file.caption,
  );
  const source = {
    ...{ pipeline, config, train },
    noise: noiseOf(pipeline, config),
    prior: prior.images,
    held: other.images.length > 0 ? other.images : held,
    conditions: trainsText ? undefined : await conditionsOf(session, captions),
  };
  const loader = imageLoader(source);
  return {
    ...windowsOf(loader, config),
    evaluation: imageEvaluation(source),
    report: { samples: all.images.length },
    warnings: [...all.warnings, ...other.warnings, ...prior.warnings],
  };
}

function noiseOf({ checkpoint }: ImagePipeline, config: TrainConfig): NoiseSettings {
  return {
    schedule: noiseSchedule(checkpoint.scheduler),
    prediction: checkpoint.scheduler.predictionType,
    snrGamma: config.snr_gamma ?? undefined,
    noiseOffset: config.noise_offset,
  };
}

/** The UNet's condition of each of `captions`, and of none. */
async function conditionsOf(
  session: ImageSession,
  captions: readonly string[],
): Promise<Map<string, Batch>> {
  const found = new Map<string, Batch>();
  for (const caption of new Set(["", ...captions]))
    found.set(caption, await session.condition([caption]));
  return found;
}
