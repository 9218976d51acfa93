import { planImageEpoch, sizedBatches } from "../data/image-epoch.ts";
import { type DataLoader, windowLoader } from "../data/windows.ts";
import { drawRow, type NoiseSettings, noisyFeeds } from "../diffusion/noisy-batch.ts";
import { stackedFeeds } from "../diffusion/sample.ts";
import type { TrainConfig } from "../host/train-config.ts";
import { Random } from "../tensor/random.ts";
import type { Batch } from "../train/setup.ts";
import type { EncodedImage } from "./image-data.ts";
import { type ImagePipeline } from "./image-pipeline.ts";
import { captionFeeds, scalingFactor, timeIds } from "./image-session.ts";

/** What batches of images are made from. */
export interface ImageSource {
  readonly pipeline: ImagePipeline;
  readonly config: TrainConfig;
  readonly noise: NoiseSettings;
  readonly train: readonly EncodedImage[];
  /** Images that are trained on beside those, for prior preservation. */
  readonly prior: readonly EncodedImage[];
  readonly held: readonly EncodedImage[];
  /** The UNet's condition by caption; undefined where the text encoders train: they are fed with ids. */
  readonly conditions: ReadonlyMap<string, Batch> | undefined;
}

/** Rows of an evaluation for each image, at times spread over all. */
const TIMES = 4;

/** A row before it is noisy: what decides about it, and its share in the loss. */
interface Row {
  readonly image: EncodedImage;
  readonly random: Random;
  readonly weight: number;
  readonly times?: readonly [number, number];
}

/** The training images as windows; every random choice is a function of the seed, the pass and the image. */
export function imageLoader(source: ImageSource): DataLoader {
  const { config, train, prior } = source;
  const { per_device_train_batch_size: batchSize, seed } = config;
  const sizes = train.map(({ size }) => size);
  const names = [...train, ...prior].map(({ file, size }) => [file.caption, size]);
  const batching = [batchSize, config.gradient_accumulation_steps, seed];
  return windowLoader<number[]>({
    planOf: (epoch) => planImageEpoch(sizes, { batchSize, seed }, epoch),
    accumulation: config.gradient_accumulation_steps,
    fingerprint: new Random(0).fork(JSON.stringify([names, batching])).key.toString(16),
    read: (plan, place) => {
      const random = (what: string): Random => new Random(seed).fork(`${what} ${place.epoch}`);
      const count = plan.flat().length;
      const rowsOf = (numbers: readonly number[]): Row[] =>
        numbers.map((i) => ({
          ...{ image: train[i]!, random: random(`image ${i}`), weight: 1 / count },
        }));
      const own = plan.map((numbers) => batchOf(source, rowsOf(numbers)));
      const others = priorRows(source, count, random(`prior ${place.window}`));
      return Promise.resolve({
        batches: [...own, ...others],
        tokens: count,
        rows: plan.map((numbers) => numbers.map((i) => train[i]!.file.path)),
      });
    },
  });
}

/** `count` of the prior images, at random, as batches. */
function priorRows(source: ImageSource, count: number, random: Random): Batch[] {
  const { prior, config } = source;
  if (prior.length === 0) return [];
  const order = random.shuffle(prior.map((_, i) => i));
  const weight = config.prior_loss_weight / count;
  const rows = Array.from({ length: count }, (_, k): Row => {
    const image = prior[order[k % order.length]!]!;
    return { image, random: random.fork(`row ${k}`), weight };
  });
  return inBatches(source, rows, config.per_device_train_batch_size);
}

/** Every held-out image at four times, always the same; the loss weights of all batches together add up to 1. */
export function imageEvaluation(source: ImageSource): (() => AsyncGenerator<Batch>) | undefined {
  const { held, config } = source;
  if (held.length === 0) return undefined;
  const plain = {
    ...source,
    config: { ...config, caption_dropout: 0, random_flip: false },
    noise: { ...source.noise, snrGamma: undefined, noiseOffset: 0 },
  };
  const rows = held.flatMap((image, i) =>
    Array.from({ length: TIMES }, (_, k): Row => {
      const random = new Random(config.seed).fork(`evaluation ${i} ${k}`);
      const times = [k / TIMES, (k + 1) / TIMES] as const;
      return { image, random, times, weight: 1 / (held.length * TIMES) };
    }),
  );
  return async function* () {
    await Promise.resolve();
    yield* inBatches(plain, rows, config.per_device_eval_batch_size);
  };
}

function inBatches(source: ImageSource, rows: readonly Row[], batchSize: number): Batch[] {
  return sizedBatches(rows, ({ image }) => image.size, batchSize).map((own) =>
    batchOf(source, own),
  );
}

function batchOf(source: ImageSource, rows: readonly Row[]): Batch {
  const { pipeline, config, noise } = source;
  const scale = scalingFactor(pipeline);
  const noisy = rows.map(({ image, random, weight, times }) => {
    const isMirrored = config.random_flip && random.fork("flip").uniform() < 0.5;
    const latents = image.latents[isMirrored ? 1 : 0]!;
    const chosen = { scale, weight, ...(times && { times }) };
    return drawRow(random.fork("noise"), latents, noise, chosen);
  });
  const captions = rows.map(({ image, random }) =>
    random.fork("caption").uniform() < config.caption_dropout ? "" : image.file.caption,
  );
  const sizes = rows.map(({ image }) => timeIds(pipeline, image.sizes));
  return {
    ...noisyFeeds(noisy, rows[0]!.image.latents[0]!.shape, noise),
    ...conditionOf(source, captions),
    ...stackedFeeds(sizes),
  };
}

function conditionOf({ pipeline, conditions }: ImageSource, captions: readonly string[]): Batch {
  if (!conditions) return captionFeeds(pipeline, captions);
  return stackedFeeds(captions.map((caption) => conditions.get(caption)!));
}
