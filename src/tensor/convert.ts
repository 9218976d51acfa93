import { type DType, isFloat, type TypedArray } from "./dtype.ts";
import type { Tensor } from "./tensor.ts";

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** The nearest bfloat16 (round to nearest, ties to even) of `value`, as its 16 bits. NaN stays NaN. */
export function toBf16(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0]!;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The value of bfloat16 `bits`. */
export function fromBf16(bits: number): number {
  scratchBits[0] = bits << 16;
  return scratch[0]!;
}

/** The nearest IEEE half (round to nearest, ties to even) of `value`, as its 16 bits. */
export function toF16(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // subnormal: the value is a whole number of 2^-24 steps, rounded to even by adding 2^23 ulps
    scratchBits[0] = magnitude;
    const steps = scratch[0] * 2 ** 24;
    const floor = Math.floor(steps);
    const rest = steps - floor;
    const up = rest > 0.5 || (rest === 0.5 && (floor & 1) === 1);
    return sign | (up ? floor + 1 : floor);
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/** The value of IEEE half `bits`. */
export function fromF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * 2 ** (exponent - 25) * (1024 + fraction);
}

/** The value of OCP 8-bit float `bits` with 4 exponent bits (bias 7, no infinity). */
export function fromF8E4M3(bits: number): number {
  const sign = bits & 0x80 ? -1 : 1;
  const exponent = (bits >>> 3) & 15;
  const fraction = bits & 7;
  if (exponent === 15 && fraction === 7) return NaN;
  if (exponent === 0) return sign * fraction * 2 ** -9;
  return sign * 2 ** (exponent - 10) * (8 + fraction);
}

/** The value of OCP 8-bit float `bits` with 5 exponent bits: the upper byte of a half. */
export function fromF8E5M2(bits: number): number {
  return fromF16(bits << 8);
}

const decoders: Partial<Record<DType, (bits: number) => number>> = {
  f16: fromF16,
  bf16: fromBf16,
  f8_e4m3: fromF8E4M3,
  f8_e5m2: fromF8E5M2,
};

/** `tensor`'s values as float32; the same array when it is float32 already. */
export function toFloat32(source: Tensor): Float32Array {
  if (source.data instanceof Float32Array) return source.data;
  const out = new Float32Array(source.data.length);
  fill(out, source);
  return out;
}

/** `tensor`'s values as float64; the same array when it is float64 already. */
export function toFloat64(source: Tensor): Float64Array {
  if (source.data instanceof Float64Array) return source.data;
  const out = new Float64Array(source.data.length);
  fill(out, source);
  return out;
}

function fill(out: Float32Array | Float64Array, { dtype, data }: Tensor): void {
  if (dtype === "bf16" && out instanceof Float32Array) {
    const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
    const halves = data as Uint16Array;
    for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16;
    return;
  }
  const decode = decoders[dtype];
  if (decode) for (let i = 0; i < data.length; i++) out[i] = decode(Number(data[i]!));
  else if (data instanceof BigInt64Array)
    for (let i = 0; i < data.length; i++) out[i] = Number(data[i]!);
  else out.set(data);
}

/** `source` converted to `dtype` (f64, f32, f16, bf16 or an integer type); the same tensor when it has that dtype. */
export function convert(source: Tensor, dtype: DType): Tensor {
  if (source.dtype === dtype) return source;
  const values = isFloat(dtype) && dtype !== "f64" ? toFloat32(source) : toFloat64(source);
  return { dtype, shape: source.shape, data: encode(values, dtype) };
}

function encode(values: Float32Array | Float64Array, dtype: DType): TypedArray {
  switch (dtype) {
    case "f64":
      return Float64Array.from(values);
    case "f32":
      return Float32Array.from(values);
    case "bf16":
      return encodeBf16(values as Float32Array);
    case "f16":
      return encodeF16(values as Float32Array);
    case "i64":
      return BigInt64Array.from(values, (value) => BigInt(Math.trunc(value)));
    case "i32":
      return Int32Array.from(values);
    case "i16":
      return Int16Array.from(values);
    case "i8":
      return Int8Array.from(values);
    case "u8":
    case "bool":
      return Uint8Array.from(values);
    default:
      throw new RangeError(`Cannot encode ${dtype}`);
  }
}

/** `values` as bfloat16 bits, each to the nearest, ties to even; as `toBf16`, but for whole arrays. */
export function encodeBf16(values: Float32Array): Uint16Array {
  const source = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < out.length; i++) {
    const bits = source[i]!;
    const isNaN = (bits & 0x7fffffff) > 0x7f800000;
    out[i] = isNaN ? (bits >>> 16) | 0x40 : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
  }
  return out;
}

/** `values` as IEEE half bits, each to the nearest, ties to even; as `toF16`, but for whole arrays. */
export function encodeF16(values: Float32Array): Uint16Array {
  const source = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < out.length; i++) {
    const bits = source[i]!;
    const magnitude = bits & 0x7fffffff;
    const isNormal = magnitude >= 0x38800000 && magnitude < 0x47800000;
    if (isNormal) {
      const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000;
      out[i] = ((bits >>> 16) & 0x8000) | (rounded >>> 13);
    } else out[i] = magnitude === 0 ? bits >>> 16 : toF16(values[i]!);
  }
  return out;
}
