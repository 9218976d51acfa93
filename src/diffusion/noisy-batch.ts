import type { Tensors } from "../backends/backend.ts";
import type { Random } from "../tensor/random.ts";
import { tensor } from "../tensor/tensor.ts";
import { addNoise, minSnrWeight, type NoiseSchedule, targetOf } from "./noise-schedule.ts";
import type { PredictionType } from "./scheduler-config.ts";

/** How an image is made noisy, and what the network is to say of it. */
export interface NoiseSettings {
  readonly schedule: NoiseSchedule;
  readonly prediction: PredictionType;
  /** γ of min-SNR; undefined: every time counts the same. */
  readonly snrGamma: number | undefined;
  /** Deviation of what is added to all noise of a channel. https://www.crosslabs.org/blog/diffusion-with-offset-noise */
  readonly noiseOffset: number;
}

/** An image's latents as the encoder gave them: mean and deviation, (C, h, w), not scaled. */
export interface LatentMoments {
  readonly mean: Float32Array;
  readonly deviation: Float32Array;
  /** C, h, w. */
  readonly shape: readonly [number, number, number];
}

/** One noisy row of a batch: clean latents, noise, training time. */
export interface NoisyRow {
  readonly clean: Float32Array;
  readonly noise: Float32Array;
  readonly t: number;
  /** Share of the row in the loss, before min-SNR. */
  readonly weight: number;
}

/** Mean and deviation of `moments` (2·C, h, w): the mean, then the logarithm of the variance. */
export function latentMoments(
  moments: Float32Array,
  shape: readonly [number, number, number],
): LatentMoments {
  const half = moments.length / 2;
  const deviation = moments
    .subarray(half)
    .map((logVariance) => Math.exp(0.5 * Math.min(20, Math.max(-30, logVariance))));
  return { mean: moments.slice(0, half), deviation, shape };
}

/**
 * A row drawn by `random` alone: the latents from their distribution, times `scale`; the noise; the time, uniform
 * among all, or in the share `[from, to)` of them.
 */
export function drawRow(
  random: Random,
  { mean, deviation, shape }: LatentMoments,
  { schedule, noiseOffset }: NoiseSettings,
  { scale, weight, times = [0, 1] }: { scale: number; weight: number; times?: readonly [number, number] }, // prettier-ignore
): NoisyRow {
  const count = schedule.alphasCumprod.length;
  const [from, to] = [Math.floor(times[0] * count), Math.floor(times[1] * count)];
  const t = from + random.integer(Math.max(1, to - from));
  const offsets = Array.from({ length: shape[0] }, () => noiseOffset * random.normal());
  const plane = shape[1] * shape[2];
  const noise = mean.map((_, i) => random.normal() + offsets[Math.floor(i / plane)]!);
  const clean = mean.map((value, i) => scale * (value + deviation[i]! * random.normal()));
  return { clean, noise, t, weight };
}

/** What a training step is fed with, but for the condition: `sample`, `timestep`, `target`, `loss_weights`. */
export function noisyFeeds(
  rows: readonly NoisyRow[],
  latents: readonly [number, number, number],
  { schedule, prediction, snrGamma }: NoiseSettings,
): Tensors {
  const shape = [rows.length, ...latents];
  const size = rows[0]!.clean.length;
  const [sample, target] = [new Float32Array(rows.length * size), new Float32Array(rows.length * size)]; // prettier-ignore
  const weights = rows.map(({ clean, noise, t, weight }, i) => {
    sample.set(addNoise(schedule, clean, noise, t), i * size);
    target.set(targetOf(schedule, prediction, { clean, noise, t }), i * size);
    if (snrGamma === undefined) return weight;
    return weight * minSnrWeight(schedule, prediction, { t, gamma: snrGamma });
  });
  const times = Float32Array.from(rows, ({ t }) => t);
  return {
    sample: tensor("f32", shape, sample),
    timestep: tensor("f32", [rows.length], times),
    target: tensor("f32", shape, target),
    loss_weights: tensor("f32", [rows.length], Float32Array.from(weights)),
  };
}
