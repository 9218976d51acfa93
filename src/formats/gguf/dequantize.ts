import { LorikeetError } from "../../errors.ts";
import { fromF16 } from "../../tensor/convert.ts";
import {
  dequantizeQ2K,
  dequantizeQ3K,
  dequantizeQ4K,
  dequantizeQ5K,
  dequantizeQ6K,
} from "./dequantize-k.ts";
import { type GgmlType, ggmlBytes } from "./types.ts";

/** Writes the values of `bytes` (whole blocks) to `out`. `half` holds the value of each of the 65 536 f16 patterns. */
export type Dequantizer = (bytes: Uint8Array, out: Float32Array, half: Float32Array) => void;

const DEQUANTIZERS: Partial<Record<GgmlType, Dequantizer>> = {
  F32: fromF32,
  F16: fromHalf,
  BF16: fromBrain,
  Q8_0: fromQ80,
  Q4_0: fromQ40,
  Q4_1: fromQ41,
  Q5_0: fromQ50,
  Q5_1: fromQ51,
  Q2_K: dequantizeQ2K,
  Q3_K: dequantizeQ3K,
  Q4_K: dequantizeQ4K,
  Q5_K: dequantizeQ5K,
  Q6_K: dequantizeQ6K,
};

/** Types that `dequantize` reads. */
export const DEQUANTIZABLE: readonly GgmlType[] = Object.keys(DEQUANTIZERS) as GgmlType[];

/** Whether `dequantize` reads `type`. */
export function canDequantize(type: GgmlType): boolean {
  return Object.hasOwn(DEQUANTIZERS, type);
}

let halves: Float32Array | undefined;

/**
 * The `size` values that `bytes` hold as blocks of `type`, as f32.
 * Layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
 * @throws LorikeetError `unsupported-quantization`; `shape` when `bytes` have another length
 */
export function dequantize(type: GgmlType, bytes: Uint8Array, size: number): Float32Array {
  const run = DEQUANTIZERS[type];
  if (!run)
    throw new LorikeetError(
      "unsupported-quantization",
      `Expected one of the tensor types ${DEQUANTIZABLE.join(", ")}, got ${type}`,
      { hint: "Use a file of the same model in another quantization, for example Q8_0 or Q4_K_M." },
    );
  if (bytes.length !== ggmlBytes(type, size))
    throw new LorikeetError(
      "shape",
      `Expected ${ggmlBytes(type, size)} bytes for ${size} values of ${type}, got ${bytes.length}`,
    );
  halves ??= Float32Array.from({ length: 65536 }, (_, bits) => fromF16(bits));
  const out = new Float32Array(size);
  run(bytes, out, halves);
  return out;
}

function fromF32(bytes: Uint8Array, out: Float32Array): void {
  new Uint8Array(out.buffer).set(bytes);
}

function fromHalf(bytes: Uint8Array, out: Float32Array, half: Float32Array): void {
  for (let i = 0, p = 0; i < out.length; i++, p += 2)
    out[i] = half[bytes[p]! | (bytes[p + 1]! << 8)]!;
}

function fromBrain(bytes: Uint8Array, out: Float32Array): void {
  const bits = new Uint32Array(out.buffer);
  for (let i = 0, p = 0; i < bits.length; i++, p += 2)
    bits[i] = (bytes[p]! << 16) | (bytes[p + 1]! << 24);
}

/** f16 scale, 32 × i8. */
function fromQ80(bytes: Uint8Array, out: Float32Array, half: Float32Array): void {
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let o = 0, p = 0; o < out.length; o += 32, p += 34) {
    const d = half[bytes[p]! | (bytes[p + 1]! << 8)]!;
    for (let i = 0; i < 32; i++) out[o + i] = d * signed[p + 2 + i]!;
  }
}

/** f16 scale, 16 bytes: low nibbles are values 0–15, high ones 16–31, both less 8. */
function fromQ40(bytes: Uint8Array, out: Float32Array, half: Float32Array): void {
  for (let o = 0, p = 0; o < out.length; o += 32, p += 18) {
    const d = half[bytes[p]! | (bytes[p + 1]! << 8)]!;
    for (let i = 0; i < 16; i++) {
      const q = bytes[p + 2 + i]!;
      out[o + i] = d * ((q & 15) - 8);
      out[o + 16 + i] = d * ((q >> 4) - 8);
    }
  }
}

/** f16 scale, f16 minimum, nibbles as in Q4_0. */
function fromQ41(bytes: Uint8Array, out: Float32Array, half: Float32Array): void {
  for (let o = 0, p = 0; o < out.length; o += 32, p += 20) {
    const d = half[bytes[p]! | (bytes[p + 1]! << 8)]!;
    const m = half[bytes[p + 2]! | (bytes[p + 3]! << 8)]!;
    for (let i = 0; i < 16; i++) {
      const q = bytes[p + 4 + i]!;
      out[o + i] = d * (q & 15) + m;
      out[o + 16 + i] = d * (q >> 4) + m;
    }
  }
}

/** f16 scale, 32 fifth bits, nibbles as in Q4_0; values less 16. */
function fromQ50(bytes: Uint8Array, out: Float32Array, half: Float32Array): void {
  for (let o = 0, p = 0; o < out.length; o += 32, p += 22) {
    const d = half[bytes[p]! | (bytes[p + 1]! << 8)]!;
    const high = word(bytes, p + 2);
    for (let i = 0; i < 16; i++) {
      const q = bytes[p + 6 + i]!;
      out[o + i] = d * (((q & 15) | (((high >>> i) & 1) << 4)) - 16);
      out[o + 16 + i] = d * (((q >> 4) | (((high >>> (i + 16)) & 1) << 4)) - 16);
    }
  }
}

/** f16 scale, f16 minimum, 32 fifth bits, nibbles as in Q4_0. */
function fromQ51(bytes: Uint8Array, out: Float32Array, half: Float32Array): void {
  for (let o = 0, p = 0; o < out.length; o += 32, p += 24) {
    const d = half[bytes[p]! | (bytes[p + 1]! << 8)]!;
    const m = half[bytes[p + 2]! | (bytes[p + 3]! << 8)]!;
    const high = word(bytes, p + 4);
    for (let i = 0; i < 16; i++) {
      const q = bytes[p + 8 + i]!;
      out[o + i] = d * ((q & 15) | (((high >>> i) & 1) << 4)) + m;
      out[o + 16 + i] = d * ((q >> 4) | (((high >>> (i + 16)) & 1) << 4)) + m;
    }
  }
}

function word(bytes: Uint8Array, p: number): number {
  return bytes[p]! | (bytes[p + 1]! << 8) | (bytes[p + 2]! << 16) | (bytes[p + 3]! << 24);
}
