/** @file What every sampler does, and the samplers by name. */
import { ddimSampler } from "./ddim.ts";
import { dpmSolverSampler } from "./dpm-solver.ts";
import { eulerSampler } from "./euler.ts";
import { noiseSchedule } from "./noise-schedule.ts";
import type { SchedulerConfig } from "./scheduler-config.ts";

/** A way from noise to a clean sample in a number of steps. It remembers what it has seen: one for each sample. */
export interface Sampler {
  /** The training times that the network is asked at, descending. */
  readonly timesteps: readonly number[];
  /** Standard deviation of the noise to start from. */
  readonly initNoiseSigma: number;
  /** What the network is fed with at step i in place of `sample`. */
  scaleInput(sample: Float32Array, i: number): Float32Array;
  /** The sample after step i, from what the network said. `noise`: standard normal, for `eta` above 0. */
  step(output: Float32Array, sample: Float32Array, i: number, noise?: Float32Array): Float32Array;
}

/** Names of the samplers, the default one first. */
export const SAMPLERS = ["ddim", "euler", "dpm++"] as const;
export type SamplerName = (typeof SAMPLERS)[number];

/** The sampler `name` for networks trained with `config`. `eta`: noise added at each step of `ddim`, 0 to 1. */
export function createSampler(
  name: SamplerName,
  config: SchedulerConfig,
  { steps, eta = 0 }: { steps: number; eta?: number },
): Sampler {
  const schedule = noiseSchedule(config);
  if (name === "ddim") return ddimSampler(schedule, config, { steps, eta });
  return name === "euler"
    ? eulerSampler(schedule, config, steps)
    : dpmSolverSampler(schedule, config, steps);
}
