import { LorikeetError } from "../errors.ts";

/** A checkpoint's `config.json`, as parsed. */
export type HfConfig = Readonly<Record<string, unknown>>;

/** The error `model-config` with `message`. */
export function configError(message: string): LorikeetError {
  return new LorikeetError("model-config", message, {
    hint: "Compare config.json with the model's original; if they are alike, the model is not supported.",
  });
}

/**
 * A number field of `config`.
 * @throws LorikeetError `model-config` when it is absent (and `fallback` undefined) or no finite number
 */
export function numberField(config: HfConfig, name: string, fallback?: number): number {
  const value = config[name] ?? fallback;
  if (typeof value !== "number" || !Number.isFinite(value))
    throw configError(`Expected a number for ${name} in config.json, got ${JSON.stringify(value)}`);
  return value;
}

/** Fields that count something, in the names of all families. */
const COUNTS = [
  ...["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"],
  ...["num_key_value_heads", "head_dim", "n_embd", "n_inner", "n_layer", "n_head", "ffn_dim"],
];

/** @throws LorikeetError `model-config` naming every count of `config` that is no whole number of at least 1 */
export function checkCounts(config: HfConfig): void {
  const wrong = COUNTS.filter((name) => {
    const value = config[name] ?? 1;
    return !Number.isInteger(value) || (value as number) < 1;
  }).map((name) => `${name} ${JSON.stringify(config[name])}`);
  const heads = Number(config["num_attention_heads"]);
  const groups = Number(config["num_key_value_heads"] ?? 1);
  if (wrong.length === 0 && heads % groups > 0)
    wrong.push(`num_attention_heads ${heads}, which num_key_value_heads ${groups} does not divide`);
  if (wrong.length > 0)
    throw configError(
      `Expected whole numbers of at least 1 that fit each other in config.json, got ${wrong.join(", ")}`,
    );
}

/** A true/false field of `config`. */
export function flagField(config: HfConfig, name: string, fallback: boolean): boolean {
  const value = config[name] ?? fallback;
  if (typeof value !== "boolean")
    throw configError(
      `Expected true or false for ${name} in config.json, got ${JSON.stringify(value)}`,
    );
  return value;
}

/**
 * Checks that a field that Lorikeet implements in some variants only has one of them.
 * @throws LorikeetError `model-config` naming the field, its value and what is supported
 */
export function oneOf<T extends string | boolean>(
  config: HfConfig,
  name: string,
  supported: readonly T[],
  fallback: T,
): T {
  const value = config[name] ?? fallback;
  if (!supported.includes(value as T))
    throw configError(
      `Expected ${name} in config.json to be ${supported.join(", ")}, got ${JSON.stringify(value)}`,
    );
  return value as T;
}

/** Tokens that a model can see at once; Infinity where its configuration does not say. */
export function contextOf(config: HfConfig): number {
  const { max_position_embeddings: tokens, n_positions: old } = config;
  return Number(tokens ?? old ?? Infinity);
}
