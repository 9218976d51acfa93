import type { NoiseSchedule } from "./noise-schedule.ts";
import type { Sampler } from "./sampler.ts";
import type { SchedulerConfig } from "./scheduler-config.ts";
import { interpolated, karrasSigmas, sigmasOf, spacedTimesteps, timeOfSigma } from "./timesteps.ts";

/** Euler's method on the probability flow. https://arxiv.org/abs/2206.00364 algorithm 2, without churn */
export function eulerSampler(
  schedule: NoiseSchedule,
  config: SchedulerConfig,
  steps: number,
): Sampler {
  const spacing = config.timestepSpacing ?? "linspace";
  const all = sigmasOf(schedule);
  let timesteps = spacedTimesteps(config, spacing, steps, { keepsFractions: true });
  let sigmas = timesteps.map((t) => interpolated(all, t));
  if (config.usesKarrasSigmas) {
    sigmas = karrasSigmas(sigmas[0]!, sigmas.at(-1)!, steps);
    timesteps = sigmas.map((sigma) => timeOfSigma(all, sigma));
  }
  const levels = [...sigmas, 0];
  const highest = Math.max(...sigmas);
  return {
    timesteps,
    initNoiseSigma: spacing === "leading" ? Math.sqrt(highest ** 2 + 1) : highest,
    scaleInput(sample, i) {
      const scale = 1 / Math.sqrt(levels[i]! ** 2 + 1);
      return sample.map((x) => scale * x);
    },
    step(output, sample, i) {
      const [sigma, next] = [levels[i]!, levels[i + 1]!];
      const clean = cleanOf(config, sigma);
      return sample.map((x, j) => x + ((x - clean(output[j]!, x)) / sigma) * (next - sigma));
    },
  };
}

function cleanOf(
  { predictionType }: SchedulerConfig,
  sigma: number,
): (output: number, x: number) => number {
  if (predictionType === "epsilon") return (output, x) => x - sigma * output;
  if (predictionType === "sample") return (output) => output;
  const square = sigma ** 2 + 1;
  return (output, x) => x / square - (sigma / Math.sqrt(square)) * output;
}
