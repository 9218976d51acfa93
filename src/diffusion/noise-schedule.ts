import type { PredictionType, SchedulerConfig } from "./scheduler-config.ts";

/** How much of an image is left at each training time t: √ᾱ_t · clean + √(1 − ᾱ_t) · noise. */
export interface NoiseSchedule {
  readonly betas: Float32Array;
  /** ᾱ, the products of 1 − β. */
  readonly alphasCumprod: Float32Array;
}

/** The noise schedule of `config`, in float32 as diffusers computes it. https://arxiv.org/abs/2006.11239 §2 */
export function noiseSchedule(config: SchedulerConfig): NoiseSchedule {
  const plain = betasOf(config);
  const betas = config.zeroTerminalSnr ? rescaledToZeroSnr(plain) : plain;
  return { betas, alphasCumprod: products(betas) };
}

function betasOf({
  trainedBetas,
  betaSchedule,
  betaStart,
  betaEnd,
  trainTimesteps: T,
}: SchedulerConfig): Float32Array {
  if (trainedBetas) return Float32Array.from(trainedBetas);
  const between = (from: number, to: number): Float32Array =>
    Float32Array.from({ length: T }, (_, i) => from + ((to - from) * i) / (T - 1));
  if (betaSchedule === "linear") return between(betaStart, betaEnd);
  if (betaSchedule === "scaled_linear")
    return between(Math.sqrt(betaStart), Math.sqrt(betaEnd)).map((root) => root * root);
  // https://arxiv.org/abs/2102.09672 §3.2
  const bar = (u: number): number => Math.cos((((u + 0.008) / 1.008) * Math.PI) / 2) ** 2;
  return Float32Array.from({ length: T }, (_, i) =>
    Math.min(1 - bar((i + 1) / T) / bar(i / T), 0.999),
  );
}

function products(betas: Float32Array): Float32Array {
  let product = 1;
  return betas.map((beta) => (product *= Math.fround(1 - beta)));
}

/** Betas whose last ᾱ is 0, with the first √ᾱ unchanged. https://arxiv.org/abs/2305.08891, algorithm 1 */
function rescaledToZeroSnr(betas: Float32Array): Float32Array {
  const roots = products(betas).map(Math.sqrt);
  const [first, last] = [roots[0]!, roots.at(-1)!];
  const bars = roots.map((root) => ((root - last) * (first / (first - last))) ** 2);
  return bars.map((bar, i) => 1 - (i === 0 ? bar : bar / bars[i - 1]!));
}

/** √ᾱ_t · clean + √(1 − ᾱ_t) · noise. */
export function addNoise(
  { alphasCumprod }: NoiseSchedule,
  clean: Float32Array,
  noise: Float32Array,
  t: number,
): Float32Array {
  const [a, b] = [Math.sqrt(alphasCumprod[t]!), Math.sqrt(1 - alphasCumprod[t]!)];
  return clean.map((x, i) => a * x + b * noise[i]!);
}

/** √ᾱ_t · noise − √(1 − ᾱ_t) · clean. https://arxiv.org/abs/2202.00512 §4 */
export function velocity(
  { alphasCumprod }: NoiseSchedule,
  clean: Float32Array,
  noise: Float32Array,
  t: number,
): Float32Array {
  const [a, b] = [Math.sqrt(alphasCumprod[t]!), Math.sqrt(1 - alphasCumprod[t]!)];
  return clean.map((x, i) => a * noise[i]! - b * x);
}

/** What a network with `prediction` should say at time t. */
export function targetOf(
  schedule: NoiseSchedule,
  prediction: PredictionType,
  { clean, noise, t }: { clean: Float32Array; noise: Float32Array; t: number },
): Float32Array {
  if (prediction === "epsilon") return noise;
  return prediction === "sample" ? clean : velocity(schedule, clean, noise, t);
}

/** Signal to noise at time t, ᾱ_t / (1 − ᾱ_t). */
export function signalToNoise({ alphasCumprod }: NoiseSchedule, t: number): number {
  const bar = alphasCumprod[t]!;
  return bar / (1 - bar);
}

/**
 * min-SNR-γ, the weight of a loss at time t: min(snr, γ) over snr (noise), snr + 1 (velocity) or 1 (clean sample).
 * 1 for noise where the SNR is zero. https://arxiv.org/abs/2303.09556 §3.4
 */
export function minSnrWeight(
  schedule: NoiseSchedule,
  prediction: PredictionType,
  { t, gamma }: { t: number; gamma: number },
): number {
  const snr = signalToNoise(schedule, t);
  const capped = Math.min(snr, gamma);
  if (prediction === "v_prediction") return capped / (snr + 1);
  if (prediction === "sample") return capped;
  return snr === 0 ? 1 : capped / snr;
}
