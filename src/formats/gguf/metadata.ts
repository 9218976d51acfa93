import { LorikeetError } from "../../errors.ts";

/** Type of a metadata value, or of the elements of an array. */
export type GgufScalarType =
  "u8" | "i8" | "u16" | "i16" | "u32" | "i32" | "f32" | "bool" | "string" | "u64" | "i64" | "f64";

/** A metadata scalar; 64-bit integers that a number cannot hold are bigints. */
export type GgufScalar = number | bigint | boolean | string;

/** A metadata value: a scalar of `type`, or an array whose elements are of `type`. */
export interface GgufValue {
  readonly type: GgufScalarType;
  readonly value: GgufScalar | readonly GgufScalar[];
}

/** Metadata of a GGUF file by key. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#standardized-key-value-pairs */
export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** Numbers of the value types in a file; 9 is an array. */
export const GGUF_TYPE_IDS: Readonly<Record<GgufScalarType, number>> = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  u64: 10,
  i64: 11,
  f64: 12,
};

/** The string under `key`, undefined when absent. @throws LorikeetError `corrupt-gguf` when it is no string */
export function getString(metadata: GgufMetadata, key: string): string | undefined {
  return get(metadata, key, "a string", (value) => typeof value === "string") as string | undefined;
}

/** The number under `key`, undefined when absent. @throws LorikeetError `corrupt-gguf` when it is no number */
export function getNumber(metadata: GgufMetadata, key: string): number | undefined {
  return get(metadata, key, "a number", (value) => typeof value === "number") as number | undefined;
}

/** The boolean under `key`, undefined when absent. @throws LorikeetError `corrupt-gguf` when it is none */
export function getBoolean(metadata: GgufMetadata, key: string): boolean | undefined {
  const isBoolean = (value: unknown): boolean => typeof value === "boolean";
  return get(metadata, key, "a boolean", isBoolean) as boolean | undefined;
}

/** The array of strings under `key`, undefined when absent. @throws LorikeetError `corrupt-gguf` when it is none */
export function getStrings(metadata: GgufMetadata, key: string): readonly string[] | undefined {
  const isStrings = (value: unknown, type: GgufScalarType): boolean =>
    Array.isArray(value) && type === "string";
  return get(metadata, key, "an array of strings", isStrings) as readonly string[] | undefined;
}

/** The array of numbers under `key`, undefined when absent. @throws LorikeetError `corrupt-gguf` when it is none */
export function getNumbers(metadata: GgufMetadata, key: string): readonly number[] | undefined {
  const isNumbers = (value: unknown): boolean =>
    Array.isArray(value) && value.every((element) => typeof element === "number");
  return get(metadata, key, "an array of numbers", isNumbers) as readonly number[] | undefined;
}

function get(
  metadata: GgufMetadata,
  key: string,
  expected: string,
  accepts: (value: unknown, type: GgufScalarType) => boolean,
): unknown {
  const found = metadata.get(key);
  if (found === undefined) return undefined;
  if (accepts(found.value, found.type)) return found.value;
  const got = Array.isArray(found.value) ? `an array of ${found.type}` : found.type;
  throw new LorikeetError(
    "corrupt-gguf",
    `Expected GGUF metadata "${key}" to be ${expected}, got ${got}`,
    { hint: "Convert the model again with a current converter." },
  );
}
