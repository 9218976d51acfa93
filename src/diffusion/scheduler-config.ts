import { LorikeetError } from "../errors.ts";

/** What a network predicts: the noise, the velocity (https://arxiv.org/abs/2202.00512 §4), or the clean sample. */
export type PredictionType = "epsilon" | "v_prediction" | "sample";

/** Which training times a sampler visits. https://arxiv.org/abs/2305.08891 §3.3 */
export type TimestepSpacing = "leading" | "trailing" | "linspace";

/** A `scheduler_config.json` of diffusers, read: field names in camelCase, defaults of the scheduler that it names. */
export interface SchedulerConfig {
  readonly trainTimesteps: number;
  readonly betaStart: number;
  readonly betaEnd: number;
  readonly betaSchedule: "linear" | "scaled_linear" | "squaredcos_cap_v2";
  readonly trainedBetas: readonly number[] | undefined;
  readonly zeroTerminalSnr: boolean;
  readonly predictionType: PredictionType;
  /** Undefined: the sampler's own default. */
  readonly timestepSpacing: TimestepSpacing | undefined;
  readonly stepsOffset: number;
  readonly setAlphaToOne: boolean;
  /** Largest magnitude of a predicted clean sample; undefined: not clipped. */
  readonly clipRange: number | undefined;
  readonly usesKarrasSigmas: boolean;
  /** How DPM-Solver++ uses the step before. */
  readonly solverType: "midpoint" | "heun";
}

const SPACINGS: readonly TimestepSpacing[] = ["leading", "trailing", "linspace"];

type Json = Readonly<Record<string, unknown>>;

/** Fields of variants that are not built, and the values that mean their absence. */
const absent: Json = {
  thresholding: false,
  use_exponential_sigmas: false,
  use_beta_sigmas: false,
  use_lu_lambdas: false,
  use_flow_sigmas: false,
  timestep_type: "discrete",
  interpolation_type: "linear",
  final_sigmas_type: "zero",
  sigma_min: null,
  sigma_max: null,
};

/**
 * Reads a `scheduler_config.json`.
 * @throws LorikeetError `scheduler-config` naming every field that is malformed or of a variant that is not built
 */
export function schedulerConfig(json: Json): SchedulerConfig {
  const faults = Object.entries(absent)
    .filter(([name, value]) => (json[name] ?? value) !== value)
    .map(([name]) => `${name} ${JSON.stringify(json[name])}`);
  const read = reader(json, faults);
  const isClassic = ["DDIMScheduler", "DDPMScheduler"].includes(String(json["_class_name"]));
  const clips = read.flag("clip_sample", isClassic);
  const config: SchedulerConfig = {
    trainTimesteps: read.number("num_train_timesteps", 1000),
    betaStart: read.number("beta_start", 0.0001),
    betaEnd: read.number("beta_end", 0.02),
    betaSchedule: read.choice(
      "beta_schedule",
      ["linear", "scaled_linear", "squaredcos_cap_v2"],
      "linear",
    ),
    trainedBetas: (json["trained_betas"] ?? undefined) as readonly number[] | undefined,
    zeroTerminalSnr: read.flag("rescale_betas_zero_snr", false),
    predictionType: read.choice(
      "prediction_type",
      ["epsilon", "v_prediction", "sample"],
      "epsilon",
    ),
    timestepSpacing:
      json["timestep_spacing"] === undefined
        ? undefined
        : read.choice<TimestepSpacing>("timestep_spacing", SPACINGS, "leading"),
    stepsOffset: read.number("steps_offset", 0),
    setAlphaToOne: read.flag("set_alpha_to_one", true),
    clipRange: clips ? read.number("clip_sample_range", 1) : undefined,
    usesKarrasSigmas: read.flag("use_karras_sigmas", false),
    solverType: json["solver_type"] === "heun" ? "heun" : "midpoint",
  };
  if (faults.length === 0) return config;
  throw new LorikeetError(
    "scheduler-config",
    `Expected a noise schedule of Stable Diffusion in scheduler_config.json, got ${faults.join(", ")}`,
    { hint: "Compare it with the model's original." },
  );
}

interface Reader {
  number(name: string, fallback: number): number;
  flag(name: string, fallback: boolean): boolean;
  choice<T extends string>(name: string, choices: readonly T[], fallback: T): T;
}

/** Reads fields of `json` and notes the malformed ones in `faults`. */
function reader(json: Json, faults: string[]): Reader {
  const checked = <T>(name: string, fallback: T, isFine: (value: unknown) => boolean): T => {
    const value = json[name] ?? fallback;
    if (!isFine(value)) faults.push(`${name} ${JSON.stringify(value)}`);
    return value as T;
  };
  return {
    number: (name, fallback) => checked(name, fallback, (value) => Number.isFinite(value)),
    flag: (name, fallback) => checked(name, fallback, (value) => typeof value === "boolean"),
    choice: (name, choices, fallback) =>
      checked(name, fallback, (value) => choices.includes(value as never)),
  };
}
