import { sampleLatents, startNoise, toRgb } from "../diffusion/sample.ts";
import { createSampler, type SamplerName, SAMPLERS } from "../diffusion/sampler.ts";
import type { PredictionType } from "../diffusion/scheduler-config.ts";
import { LorikeetError } from "../errors.ts";
import { vaeFactor } from "../models/autoencoder-kl.ts";
import { toFloat32 } from "../tensor/convert.ts";
import { Random } from "../tensor/random.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import type { ImagePipeline } from "./image-pipeline.ts";
import { type ImageSession, openImageSession, timeIds } from "./image-session.ts";

/** Options of `imagine`. */
export interface ImagineOptions {
  readonly prompt: string;
  /** What to keep away from. */
  readonly negativePrompt?: string;
  /** Default 25. */
  readonly steps?: number;
  /** How strongly the prompt is followed, 1: not more than the network does by itself. Default 7.5. */
  readonly guidance?: number;
  /** The same seed gives the same image. Default 0. */
  readonly seed?: number;
  /** Pixels; multiples of 8. Default: what the model was trained on. */
  readonly width?: number;
  readonly height?: number;
  readonly sampler?: SamplerName;
  /** Noise that `ddim` adds at each step, 0 to 1. */
  readonly eta?: number;
  /** What the model predicts, where its scheduler_config.json is wrong or absent. */
  readonly predictionType?: PredictionType;
  /** Standard normal latents (1, C, h, w) to start from, in place of the seed's. */
  readonly latents?: Tensor;
  readonly onStep?: (done: number, total: number) => void;
}

/** An image: red, green and blue of each pixel, row by row; and every setting that it was made with. */
export interface MadeImage {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
  /** Latents as the UNet knows them, (1, C, h, w). */
  readonly latents: Tensor;
  readonly settings: ImageSettings;
}

/** What an image was made with. */
export interface ImageSettings {
  readonly prompt: string;
  readonly negativePrompt: string;
  readonly steps: number;
  readonly guidance: number;
  readonly seed: number;
  readonly sampler: SamplerName;
  readonly eta: number;
  readonly width: number;
  readonly height: number;
  readonly model: string;
  readonly adapters: readonly { readonly name: string; readonly weight: number }[];
}

/**
 * Makes an image from a prompt. With `session` its compiled programs are used again; else one is opened and closed.
 * @throws LorikeetError `image-options`, `image-size`, `unknown-sampler`, `non-finite-latents`, `non-finite-pixels`
 */
export async function imagine(
  pipeline: ImagePipeline,
  options: ImagineOptions,
  session?: ImageSession,
): Promise<MadeImage> {
  if (session) return make(pipeline, session, options);
  const own = await openImageSession(pipeline);
  try {
    return await make(pipeline, own, options);
  } finally {
    await own.dispose();
  }
}

async function make(
  pipeline: ImagePipeline,
  session: ImageSession,
  options: ImagineOptions,
): Promise<MadeImage> {
  const { configs, scheduler, zeroesNegative } = pipeline.checkpoint;
  const settings = settingsOf(pipeline, options);
  const { steps, guidance, seed, eta, width, height } = settings;
  const { predictionType = scheduler.predictionType } = options;
  const sampler = createSampler(settings.sampler, { ...scheduler, predictionType }, { steps, eta });
  const isGuided = guidance !== 1;
  const sizes = timeIds(pipeline, [height, width, 0, 0, height, width]);
  const conditionOf = async (text: string): Promise<Record<string, Tensor>> => ({
    ...(await session.condition([text])),
    ...sizes,
  });
  const condition = await conditionOf(settings.prompt);
  const isZero = zeroesNegative && options.negativePrompt === undefined;
  const negative = isZero
    ? { ...condition, ...zerosLike(condition, ["encoder_hidden_states", "text_embeds"]) }
    : await conditionOf(settings.negativePrompt);
  const factor = vaeFactor(configs.vae);
  const [h, w] = [height / factor, width / factor];
  const length = condition["encoder_hidden_states"]!.shape[1]!;
  const denoise = await session.denoiser({
    batch: isGuided ? 2 : 1,
    height: h,
    width: w,
    length,
  });
  const channels = Number(configs.unet["in_channels"] ?? 4);
  const latents = await sampleLatents(denoise, {
    sampler,
    start: options.latents ?? startNoise(seed, [1, channels, h, w]),
    condition,
    negative: isGuided ? negative : undefined,
    guidance,
    random: new Random(seed).fork("steps"),
    ...(options.onStep && { onStep: options.onStep }),
  });
  const pixels = await session.decode(latents);
  checkPixels(pixels);
  return { width, height, rgb: toRgb(pixels), latents, settings };
}

/** `options` with defaults, checked. */
function settingsOf(
  { checkpoint: { configs, scheduler, name }, adapters }: ImagePipeline,
  options: ImagineOptions,
): ImageSettings {
  const { prompt, steps = 25, guidance = 7.5, seed = 0, eta = 0, negativePrompt = "" } = options;
  const sampler = samplerOf(options.sampler);
  checkNumbers({ steps, guidance, seed, eta }, scheduler.trainTimesteps);
  const factor = vaeFactor(configs.vae);
  const own = factor * Number(configs.unet["sample_size"] ?? 64);
  const { width = own, height = own } = options;
  checkSize(width, height, factor);
  const used = adapters.map(({ name: called = "", weight = 1 }) => ({ name: called, weight }));
  const numbers = { steps, guidance, seed, eta, width, height };
  return { prompt, negativePrompt, sampler, ...numbers, model: name, adapters: used };
}

/** @throws LorikeetError `non-finite-pixels`: an image that would be black */
function checkPixels(pixels: Tensor): void {
  if (toFloat32(pixels).every(Number.isFinite)) return;
  throw new LorikeetError(
    "non-finite-pixels",
    "Expected finite pixels of finite latents, got NaN or infinity from the autoencoder",
    {
      hint: "Autoencoders overflow in 16 bits, SDXL's first one above all: use one in f32, or --device cpu.",
    },
  );
}

function zerosLike(
  feeds: Readonly<Record<string, Tensor>>,
  names: readonly string[],
): Record<string, Tensor> {
  return Object.fromEntries(
    names
      .filter((name) => feeds[name])
      .map((name) => [name, tensor(feeds[name]!.dtype, feeds[name]!.shape)]),
  );
}

function samplerOf(name: string = SAMPLERS[0]): SamplerName {
  const known = SAMPLERS.find((sampler) => sampler === name);
  if (known) return known;
  throw new LorikeetError(
    "unknown-sampler",
    `Expected a sampler out of ${SAMPLERS.join(", ")}, got ${name}`,
    { hint: `Leave it out for ${SAMPLERS[0]}.` },
  );
}

/** @throws LorikeetError `image-options` naming every number that is out of its range */
function checkNumbers(
  { steps, guidance, seed, eta }: Record<"steps" | "guidance" | "seed" | "eta", number>,
  trainTimesteps: number,
): void {
  const checks: readonly [boolean, string][] = [
    [isWhole(steps) && steps > 0 && steps <= trainTimesteps, `steps ${steps} (1 to ${trainTimesteps})`], // prettier-ignore
    [Number.isFinite(guidance) && guidance >= 0, `guidance ${guidance} (0 or more)`],
    [isWhole(seed) && seed >= 0, `seed ${seed} (0, 1, 2 …)`],
    [eta >= 0 && eta <= 1, `eta ${eta} (0 to 1)`],
  ];
  const faults = checks.filter(([isFine]) => !isFine).map(([, fault]) => fault);
  if (faults.length === 0) return;
  throw new LorikeetError("image-options", `Expected settings within their ranges, got ${faults.join(", ")}`, { hint: "Correct them, or leave them out." }); // prettier-ignore
}

function isWhole(value: number): boolean {
  return Number.isSafeInteger(value);
}

/** @throws LorikeetError `image-size` when the latents would not be a whole number of pixels */
export function checkSize(width: number, height: number, factor: number): void {
  const unit = Math.max(8, factor);
  if ([width, height].every((side) => Number.isInteger(side) && side > 0 && side % unit === 0))
    return;
  const near = [width, height].map((side) => Math.max(unit, Math.round(side / unit) * unit));
  throw new LorikeetError(
    "image-size",
    `Expected width and height to be multiples of ${unit}, got ${width} × ${height}`,
    { hint: `Nearest: ${near.join(" × ")}.` },
  );
}
