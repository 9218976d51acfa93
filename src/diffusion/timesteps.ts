/** @file Which training times a sampler visits, and the noise levels there, as diffusers chooses them. */
import type { NoiseSchedule } from "./noise-schedule.ts";
import type { SchedulerConfig, TimestepSpacing } from "./scheduler-config.ts";

/**
 * `steps` training times, descending. `linspace`: from the last to 0, `withoutZero`: 0 itself left out, which also
 * moves the times of `leading`; whole numbers unless `keepsFractions`.
 */
export function spacedTimesteps(
  { trainTimesteps: T, stepsOffset }: SchedulerConfig,
  spacing: TimestepSpacing,
  steps: number,
  {
    withoutZero = false,
    keepsFractions = false,
  }: { withoutZero?: boolean; keepsFractions?: boolean } = {},
): number[] {
  const count = withoutZero ? steps + 1 : steps;
  const descending = Array.from({ length: count }, (_, i) => count - 1 - i).slice(0, steps);
  if (spacing === "trailing")
    return Array.from({ length: steps }, (_, i) => roundHalfEven(T - (i * T) / steps) - 1);
  if (spacing === "leading") return descending.map((i) => i * Math.floor(T / count) + stepsOffset);
  const times = descending.map((i) => (count === 1 ? 0 : ((T - 1) * i) / (count - 1)));
  return keepsFractions ? times.map(Math.fround) : times.map(roundHalfEven);
}

/** Noise over signal, √((1 − ᾱ) / ᾱ), at every training time; a zero signal counts as 2⁻²⁴. */
export function sigmasOf({ alphasCumprod }: NoiseSchedule): Float64Array {
  return Float64Array.from(alphasCumprod, (bar) => {
    const signal = bar === 0 ? 2 ** -24 : bar;
    return Math.sqrt((1 - signal) / signal);
  });
}

/** `values` at a time between two whole ones. */
export function interpolated(values: Float64Array, t: number): number {
  const low = Math.min(Math.floor(t), values.length - 1);
  const high = Math.min(low + 1, values.length - 1);
  return values[low]! + (values[high]! - values[low]!) * (t - low);
}

/** `steps` noise levels from `highest` down to `lowest`. https://arxiv.org/abs/2206.00364 eq. 5 */
export function karrasSigmas(highest: number, lowest: number, steps: number): number[] {
  const rho = 7;
  const [from, to] = [highest ** (1 / rho), lowest ** (1 / rho)];
  return Array.from(
    { length: steps },
    (_, i) => (from + (to - from) * (steps === 1 ? 0 : i / (steps - 1))) ** rho,
  );
}

/** The time between two training times whose noise level is `sigma`, by its logarithm. */
export function timeOfSigma(sigmas: Float64Array, sigma: number): number {
  const target = Math.log(Math.max(sigma, 1e-10));
  let low = 0;
  while (low < sigmas.length - 2 && Math.log(sigmas[low + 1]!) <= target) low++;
  const [a, b] = [Math.log(sigmas[low]!), Math.log(sigmas[low + 1]!)];
  const share = Math.min(1, Math.max(0, (a - target) / (a - b)));
  return low + share;
}

/** NumPy's rounding: halves go to the even neighbour. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}
