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
