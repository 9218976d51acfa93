/** Element types of tensors, named as in safetensors but lower case. `bool` is one byte, 0 or 1. */
export type DType =
  | "f64"
  | "f32"
  | "f16"
  | "bf16"
  | "i64"
  | "i32"
  | "i16"
  | "i8"
  | "u8"
  | "bool"
  | "f8_e4m3"
  | "f8_e5m2";

/** Storage of a tensor's elements. f16 and bf16 are raw bits in a Uint16Array, f8 in a Uint8Array. */
export type TypedArray =
  | Float64Array
  | Float32Array
  | Uint16Array
  | BigInt64Array
  | Int32Array
  | Int16Array
  | Int8Array
  | Uint8Array;

/** Bytes of one element. */
export const BYTES: Readonly<Record<DType, number>> = {
  f64: 8,
  f32: 4,
  f16: 2,
  bf16: 2,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u8: 1,
  bool: 1,
  f8_e4m3: 1,
  f8_e5m2: 1,
};

/** Whether `dtype` holds real numbers (gradients exist only for these). */
export function isFloat(dtype: DType): boolean {
  return dtype.startsWith("f") || dtype === "bf16";
}

/** A zero-filled array of `length` elements that stores `dtype`. */
export function allocate(dtype: DType, length: number): TypedArray {
  return viewAs(dtype, new ArrayBuffer(length * BYTES[dtype]), 0, length);
}

/**
 * A typed view of `length` elements of `dtype` in `buffer` at byte `offset`.
 * @throws RangeError when `offset` is not a multiple of the element size or the view leaves the buffer
 */
export function viewAs(
  dtype: DType,
  buffer: ArrayBufferLike,
  offset: number,
  length: number,
): TypedArray {
  switch (dtype) {
    case "f64":
      return new Float64Array(buffer, offset, length);
    case "f32":
      return new Float32Array(buffer, offset, length);
    case "f16":
    case "bf16":
      return new Uint16Array(buffer, offset, length);
    case "i64":
      return new BigInt64Array(buffer, offset, length);
    case "i32":
      return new Int32Array(buffer, offset, length);
    case "i16":
      return new Int16Array(buffer, offset, length);
    case "i8":
      return new Int8Array(buffer, offset, length);
    case "u8":
    case "bool":
    case "f8_e4m3":
    case "f8_e5m2":
      return new Uint8Array(buffer, offset, length);
  }
}
