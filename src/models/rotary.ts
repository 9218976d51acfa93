import { LorikeetError } from "../errors.ts";
import type { Node } from "../ir/node.ts";
import { cast } from "../ops/cast.ts";
import { cos } from "../ops/cos.ts";
import { constant, literal } from "../ops/leaf.ts";
import { less } from "../ops/less.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { select } from "../ops/select.ts";
import { sin } from "../ops/sin.ts";
import { sizeOf } from "../tensor/shape.ts";
import { flagField, type HfConfig, numberField } from "./config.ts";

/** How fast each pair of features turns with position, and the factor on its cosine and sine. */
export interface Rotary {
  /** R/2 angles a position, radians. */
  readonly frequencies: Float64Array;
  readonly factor: number;
  /** Other frequencies for tokens at position `from` and later. */
  readonly beyond?: { readonly from: number; readonly frequencies: Float64Array };
}

/** Cosine and sine of every position's angles, each (N, R/2). */
export interface Angles {
  readonly cos: Node;
  readonly sin: Node;
}

/**
 * The rotary embedding of `config` for heads of `dim` features, in the old spelling (`rope_theta`, `rope_scaling`)
 * or the new one (`rope_parameters`, possibly one for each layer type).
 * @param length tokens of a run, and `cacheLength` slots before them, for scalings that depend on it
 * @throws LorikeetError `model-config` for a rope type that is not supported
 */
export function rotaryOf(
  config: HfConfig,
  dim: number,
  options: { layerType?: string; length: number; cacheLength?: number | undefined },
): Rotary {
  const { layerType, length, cacheLength = 0 } = options;
  const given = (config["rope_parameters"] ?? config["rope_scaling"] ?? {}) as HfConfig;
  const parameters = ((layerType && given[layerType]) || given) as HfConfig;
  const theta = numberField(parameters, "rope_theta", numberField(config, "rope_theta", 10000));
  const type = (parameters["rope_type"] ?? parameters["type"] ?? "default") as string;
  const partial = numberField(
    parameters,
    "partial_rotary_factor",
    numberField(config, "partial_rotary_factor", 1),
  );
  const rotated = Math.floor(dim * partial);
  const plain = Float64Array.from({ length: rotated / 2 }, (_, i) => theta ** ((-2 * i) / rotated));
  const scaling = scalings[type];
  if (!scaling)
    throw new LorikeetError(
      "model-config",
      `Expected rope_type in config.json to be ${Object.keys(scalings).join(", ")}, got ${type}`,
      { hint: "Take a model with one of these; others are not built." },
    );
  return scaling(plain, parameters, { config, theta, dim: rotated, length, cacheLength });
}

/** Cosines and sines for `positions` (…) in one row a position. */
export function anglesOf({ frequencies, factor, beyond }: Rotary, positions: Node): Angles {
  const column = reshape(cast(positions, { dtype: "f32" }), {
    shape: [sizeOf(positions.shape), 1],
  });
  const table = beyond
    ? select(less(column, constant(beyond.from)), row(frequencies), row(beyond.frequencies))
    : row(frequencies);
  const angles = mul(column, table);
  const scaled = (x: Node): Node => (factor === 1 ? x : mul(x, constant(factor)));
  return { cos: scaled(cos(angles)), sin: scaled(sin(angles)) };
}

function row(values: Float64Array): Node {
  return literal({ dtype: "f32", shape: [1, values.length], data: Float32Array.from(values) });
}

interface Context {
  readonly config: HfConfig;
  readonly theta: number;
  readonly dim: number;
  readonly length: number;
  readonly cacheLength: number;
}

type Scaling = (plain: Float64Array, parameters: HfConfig, context: Context) => Rotary;

const scalings: Readonly<Record<string, Scaling>> = {
  default: (plain) => ({ frequencies: plain, factor: 1 }),
  linear: (plain, parameters) => ({
    frequencies: plain.map((f) => f / numberField(parameters, "factor")),
    factor: 1,
  }),
  llama3,
  yarn,
  longrope,
};

/** Llama 3.1: low frequencies divided by `factor`, high ones kept, a smooth passage between. */
function llama3(plain: Float64Array, parameters: HfConfig, { config }: Context): Rotary {
  const factor = numberField(parameters, "factor");
  const low = numberField(parameters, "low_freq_factor");
  const high = numberField(parameters, "high_freq_factor");
  const { context } = contextsOf(parameters, config);
  const frequencies = plain.map((f) => {
    const turns = (context * f) / (2 * Math.PI);
    const share = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return (1 - share) * (f / factor) + share * f;
  });
  return { frequencies, factor: 1 };
}

/** YaRN. https://arxiv.org/abs/2309.00071 */
function yarn(plain: Float64Array, parameters: HfConfig, { config, theta, dim }: Context): Rotary {
  const { context, longest } = contextsOf(parameters, config);
  const factor = numberField(parameters, "factor", longest / context);
  const whole = flagField(parameters, "truncate", true);
  const featureOf = (turns: number): number =>
    (dim * Math.log(context / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const fast = featureOf(numberField(parameters, "beta_fast", 32));
  const slow = featureOf(numberField(parameters, "beta_slow", 1));
  const start = Math.max(0, whole ? Math.floor(fast) : fast);
  const end = Math.min(dim - 1, whole ? Math.ceil(slow) : slow);
  const frequencies = plain.map((f, i) => {
    const ramp = Math.min(1, Math.max(0, (i - start) / (start === end ? 0.001 : end - start)));
    return (f / factor) * ramp + f * (1 - ramp);
  });
  return { frequencies, factor: yarnAttention(parameters, factor) };
}

/** The factor on cosine and sine: as given, or by the paper's formula, or DeepSeek's of two scales. */
function yarnAttention(parameters: HfConfig, factor: number): number {
  const scaled = (by: number): number => (factor > 1 ? 0.1 * by * Math.log(factor) + 1 : 1);
  const scale = numberField(parameters, "mscale", 0);
  const allDim = numberField(parameters, "mscale_all_dim", 0);
  const usual = scale !== 0 && allDim !== 0 ? scaled(scale) / scaled(allDim) : scaled(1);
  return numberField(parameters, "attention_factor", usual);
}

/**
 * LongRoPE (Phi-3): a divisor for each frequency, one list for short and one for long sequences. A step over a cache,
 * whose slots need not all be used, tells by its token's position which of them it is.
 */
function longrope(plain: Float64Array, parameters: HfConfig, context: Context): Rotary {
  const { context: short, longest } = contextsOf(parameters, context.config);
  const { length, cacheLength } = context;
  const divided = (list: string): Float64Array => {
    const divisors = parameters[list] as readonly number[];
    return plain.map((f, i) => f / divisors[i]!);
  };
  const ratio = numberField(parameters, "factor", longest / short);
  const usual = ratio <= 1 ? 1 : Math.sqrt(1 + Math.log(ratio) / Math.log(short));
  const factor = numberField(parameters, "attention_factor", usual);
  if (length + cacheLength <= short) return { frequencies: divided("short_factor"), factor };
  if (cacheLength === 0 || length > 1) return { frequencies: divided("long_factor"), factor };
  const beyond = { from: short, frequencies: divided("long_factor") };
  return { frequencies: divided("short_factor"), factor, beyond };
}

/** Tokens that the model was first trained on, and that it sees since; a length beside the parameters comes first. */
function contextsOf(parameters: HfConfig, config: HfConfig): { context: number; longest: number } {
  const longest = numberField(config, "max_position_embeddings");
  const name = "original_max_position_embeddings";
  return { longest, context: numberField(config, name, numberField(parameters, name, longest)) };
}
