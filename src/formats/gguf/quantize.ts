import { LorikeetError } from "../../errors.ts";
import { encodeBf16, encodeF16, toF16 } from "../../tensor/convert.ts";
import { ggmlBytes, GGML_TYPES } from "./types.ts";

/** Types that tensors can be written as. */
export type WritableType = "F32" | "F16" | "BF16" | "Q8_0";

/**
 * `values` as blocks of `type`, bit for bit as ggml's reference quantizer.
 * @throws LorikeetError `shape` when they are no whole number of blocks (a row of Q8_0 has a multiple of 32 values)
 */
export function quantize(type: WritableType, values: Float32Array): Uint8Array {
  if (values.length % GGML_TYPES[type].block !== 0)
    throw new LorikeetError(
      "shape",
      `Expected a multiple of ${GGML_TYPES[type].block} values for ${type}, got ${values.length}`,
    );
  switch (type) {
    case "F32":
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    case "F16":
      return new Uint8Array(encodeF16(values).buffer);
    case "BF16":
      return new Uint8Array(encodeBf16(values).buffer);
    case "Q8_0":
      return quantizeQ80(values);
  }
}

/** Blocks of 32: f16 scale max|x|/127, then round(x/scale) as i8, halves away from zero; all in f32 arithmetic. */
function quantizeQ80(values: Float32Array): Uint8Array {
  const out = new Uint8Array(ggmlBytes("Q8_0", values.length));
  const f = Math.fround;
  for (let v = 0, p = 0; v < values.length; v += 32, p += 34) {
    let largest = 0;
    for (let i = 0; i < 32; i++) largest = Math.max(largest, Math.abs(values[v + i]!));
    const d = f(largest / 127);
    const inverse = d === 0 ? 0 : f(1 / d);
    const bits = toF16(d);
    out[p] = bits & 255;
    out[p + 1] = bits >> 8;
    for (let i = 0; i < 32; i++) {
      const x = f(values[v + i]! * inverse);
      out[p + 2 + i] = Math.sign(x) * Math.round(Math.abs(x));
    }
  }
  return out;
}
