import { LorikeetError, nearest } from "../errors.ts";

/** Learning-rate schedules, named as in transformers. `constant` has no warm-up. */
export const SCHEDULES: readonly ["constant", "constant_with_warmup", "linear", "cosine"] = [
  "constant",
  "constant_with_warmup",
  "linear",
  "cosine",
];

/** Name of a learning-rate schedule. */
export type ScheduleName = (typeof SCHEDULES)[number];

/** What a schedule depends on besides its name. */
export interface ScheduleOptions {
  /** Peak learning rate. */
  readonly learningRate: number;
  /** Optimizer steps of the whole run. */
  readonly totalSteps: number;
  /** Steps that rise from 0 to the peak; wins over `warmupRatio` when above 0. */
  readonly warmupSteps?: number;
  /** Share of the steps that rise, in [0, 1]; rounded up to whole steps. */
  readonly warmupRatio?: number;
}

/**
 * The learning rate of optimizer step `step` (from 1), as a function: what transformers' `get_scheduler`
 * gives its optimizer for that step. Like there, the first step of a warm-up has rate 0.
 * https://huggingface.co/docs/transformers/main_classes/optimizer_schedules
 * @throws LorikeetError `schedule` for an unknown name
 */
export function learningRateSchedule(
  name: ScheduleName,
  options: ScheduleOptions,
): (step: number) => number {
  const { learningRate, totalSteps } = options;
  const warmup = name === "constant" ? 0 : warmupSteps(options);
  const afterWarmup = decay[name] as ((progress: number) => number) | undefined;
  if (!afterWarmup)
    throw new LorikeetError(
      "schedule",
      `Expected a learning-rate schedule (${SCHEDULES.join(", ")}), got "${name}"`,
      { hint: `Did you mean "${nearest(name, SCHEDULES, 1)[0] ?? "linear"}"?` },
    );
  return (step) => {
    const done = step - 1;
    if (done < warmup) return learningRate * (done / Math.max(1, warmup));
    return learningRate * afterWarmup((done - warmup) / Math.max(1, totalSteps - warmup));
  };
}

/** Whole warm-up steps of `options`. */
export function warmupSteps({ totalSteps, warmupSteps, warmupRatio }: ScheduleOptions): number {
  return warmupSteps ? warmupSteps : Math.ceil(totalSteps * (warmupRatio ?? 0));
}

/** Factor on the peak rate at `progress` (0 just after warm-up, 1 at the end of the run). */
const decay: Readonly<Record<ScheduleName, (progress: number) => number>> = {
  constant: () => 1,
  constant_with_warmup: () => 1,
  linear: (progress) => Math.max(0, 1 - progress),
  cosine: (progress) => Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress))),
};
