import type { NoiseSchedule } from "./noise-schedule.ts";
import type { Sampler } from "./sampler.ts";
import type { SchedulerConfig } from "./scheduler-config.ts";
import {
  interpolated,
  karrasSigmas,
  roundHalfEven,
  sigmasOf,
  spacedTimesteps,
  timeOfSigma,
} from "./timesteps.ts";

/** DPM-Solver++ of second order with several steps (2M). https://arxiv.org/abs/2211.01095 algorithm 2 */
export function dpmSolverSampler(
  schedule: NoiseSchedule,
  config: SchedulerConfig,
  steps: number,
): Sampler {
  const { timesteps, levels } = visits(schedule, config, steps);
  let before: Float32Array | undefined;
  return {
    timesteps,
    initNoiseSigma: 1,
    scaleInput: (sample) => sample,
    step(output, sample, i) {
      const clean = cleanSample(config, levels[i]!, output, sample);
      const isLast = i === steps - 1;
      const first = !before || isLast;
      const weights = first
        ? firstOrder(levels[i]!, levels[i + 1]!)
        : secondOrder(config, [levels[i - 1]!, levels[i]!, levels[i + 1]!]);
      const last = before ?? clean;
      before = clean;
      const { x, now, change } = weights;
      return sample.map(
        (value, j) => x * value + now * clean[j]! + change * (clean[j]! - last[j]!),
      );
    },
  };
}

/** A noise level as the share of the signal, the share of the noise, and half the logarithm of their squared ratio. */
interface Level {
  readonly alpha: number;
  readonly sigma: number;
  readonly lambda: number;
}

function levelOf(ratio: number): Level {
  const alpha = 1 / Math.sqrt(ratio ** 2 + 1);
  return { alpha, sigma: ratio * alpha, lambda: -Math.log(ratio) };
}

function visits(
  schedule: NoiseSchedule,
  config: SchedulerConfig,
  steps: number,
): { timesteps: number[]; levels: Level[] } {
  const all = sigmasOf(schedule);
  let timesteps = spacedTimesteps(config, config.timestepSpacing ?? "linspace", steps, {
    withoutZero: true,
  });
  let sigmas = timesteps.map((t) => interpolated(all, t));
  if (config.usesKarrasSigmas) {
    sigmas = karrasSigmas(all.at(-1)!, all[0]!, steps);
    const times = sigmas.map((sigma) => timeOfSigma(all, sigma));
    const isCosine = config.betaSchedule === "squaredcos_cap_v2";
    timesteps = isCosine ? times.map(Math.trunc) : times.map(roundHalfEven);
  }
  return { timesteps, levels: [...sigmas, 0].map(levelOf) };
}

function cleanSample(
  { predictionType }: SchedulerConfig,
  { alpha, sigma }: Level,
  output: Float32Array,
  sample: Float32Array,
): Float32Array {
  if (predictionType === "sample") return output;
  if (predictionType === "epsilon") return sample.map((x, j) => (x - sigma * output[j]!) / alpha);
  return sample.map((x, j) => alpha * x - sigma * output[j]!);
}

/** The next sample is x · sample + now · clean + change · (clean − the one before). */
interface Weights {
  readonly x: number;
  readonly now: number;
  readonly change: number;
}

function firstOrder(from: Level, to: Level): Weights {
  const shrink = Math.exp(from.lambda - to.lambda) - 1;
  return { x: to.sigma / from.sigma, now: -to.alpha * shrink, change: 0 };
}

function secondOrder(
  { solverType }: SchedulerConfig,
  [before, from, to]: [Level, Level, Level],
): Weights {
  const h = to.lambda - from.lambda;
  const ratio = (from.lambda - before.lambda) / h;
  const shrink = Math.exp(-h) - 1;
  const change = solverType === "midpoint" ? -0.5 * to.alpha * shrink : to.alpha * (shrink / h + 1);
  return { ...firstOrder(from, to), change: change / ratio };
}
