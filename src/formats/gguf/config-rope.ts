import { LorikeetError } from "../../errors.ts";
import { getNumber, getString, type GgufMetadata } from "./metadata.ts";

/** Values of the tensors in which GGUF keeps rotary factors: `rope_freqs`, `rope_factors_long`, `rope_factors_short`. */
export interface RopeFactors {
  readonly frequencies?: Float32Array;
  readonly long?: Float32Array;
  readonly short?: Float32Array;
}

/** Parameters of Llama 3's rotary scaling, as config.json spells them. */
export interface Llama3Rope {
  readonly factor: number;
  readonly low_freq_factor: number;
  readonly high_freq_factor: number;
  readonly original_max_position_embeddings: number;
}

/**
 * `rope_parameters` of config.json from the metadata of `architecture`.
 * @throws LorikeetError `unsupported-gguf` for a scaling type that config.json has no word for
 */
export function ropeParameters(
  metadata: GgufMetadata,
  architecture: string,
  { frequencies, long, short }: RopeFactors,
): Record<string, unknown> {
  const key = (name: string): string => `${architecture}.rope.${name}`;
  const theta = getNumber(metadata, key("freq_base")) ?? 10000;
  const context = getNumber(metadata, key("scaling.original_context_length"));
  if (frequencies && frequencies.some((factor) => factor !== 1))
    return { rope_type: "llama3", rope_theta: theta, ...recoverLlama3(frequencies, theta) };
  if (long && short)
    return {
      rope_type: "longrope",
      rope_theta: theta,
      long_factor: [...long],
      short_factor: [...short],
      ...(context === undefined ? {} : { original_max_position_embeddings: context }),
    };
  const type = getString(metadata, key("scaling.type")) ?? "none";
  const factor = getNumber(metadata, key("scaling.factor")) ?? 1;
  if (type === "none" || (type === "linear" && factor === 1))
    return { rope_type: "default", rope_theta: theta };
  if (type === "linear") return { rope_type: "linear", rope_theta: theta, factor };
  if (type === "yarn")
    return {
      rope_type: "yarn",
      rope_theta: theta,
      factor,
      ...(context === undefined ? {} : { original_max_position_embeddings: context }),
      ...yarnTurns(metadata, key),
    };
  throw new LorikeetError(
    "unsupported-gguf",
    `Expected ${key("scaling.type")} to be none, linear or yarn, got "${type}"`,
    { hint: "Use the model's Hugging Face folder." },
  );
}

/** Turns between which YaRN passes from kept to stretched frequencies, where the file gives them. */
function yarnTurns(metadata: GgufMetadata, key: (name: string) => string): Record<string, number> {
  const found: Record<string, number> = {};
  for (const field of ["beta_fast", "beta_slow"]) {
    const turns = getNumber(metadata, key(`scaling.yarn_${field}`));
    if (turns !== undefined) found[field] = turns;
  }
  return found;
}

/**
 * The divisors that Llama 3's scaling gives each of the `count` rotary frequencies: 1 for wavelengths that the
 * original context holds often, `factor` for those it holds rarely, a smooth passage between.
 */
export function llama3Factors(rope: Llama3Rope, theta: number, count: number): Float32Array {
  const { factor, low_freq_factor: low, high_freq_factor: high } = rope;
  return Float32Array.from({ length: count }, (_, i) => {
    const turns = (rope.original_max_position_embeddings * theta ** (-i / count)) / (2 * Math.PI);
    const share = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return 1 / ((1 - share) / factor + share);
  });
}

/** Finds the parameters that give `factors`: GGUF keeps only the result of Llama 3's formula. */
function recoverLlama3(factors: Float32Array, theta: number): Llama3Rope {
  const factor = Math.round(Math.max(...factors) * 1000) / 1000;
  for (let context = 131072; context >= 16; context /= 2) {
    const rope: Llama3Rope = {
      factor,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: context,
    };
    const expected = llama3Factors(rope, theta, factors.length);
    if (expected.every((value, i) => Math.abs(value - factors[i]!) <= 1e-4 * value)) return rope;
  }
  throw new LorikeetError(
    "unsupported-gguf",
    "Expected rope_freqs.weight to follow Llama 3's formula (low_freq_factor 1, high_freq_factor 4), it does not",
    { hint: "Use the model's Hugging Face folder." },
  );
}
