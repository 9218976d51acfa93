import { type Shape, sizeOf } from "../tensor/shape.ts";
import { NF4_BLOCK, NF4_LEVELS } from "../tensor/quantize.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { gatherRows } from "./gather-rows.ts";
import { literal } from "./leaf.ts";
import { mul } from "./mul.ts";
import { reshape } from "./reshape.ts";

/** Both values of each byte. */
const pairs: Tensor = tensor(
  "f32",
  [256, 2],
  Float32Array.from({ length: 512 }, (_, i) => NF4_LEVELS[i & 1 ? (i >> 1) & 15 : i >> 5]!),
);

/**
 * The values of NF4 codes in `shape`. codes: (n/2) bytes, the first value in the high half; absmax: (n/64), the
 * factor of each block. https://arxiv.org/abs/2305.14314
 */
export const dequantizeNf4: Op<["codes", "absmax"], { shape: Shape }> = defineOp("dequantizeNf4", {
  inputs: ["codes", "absmax"],
  infer({ codes, absmax, shape }) {
    const size = sizeOf(shape);
    if (codes.shape.join() !== String(size / 2) || absmax.shape.join() !== String(size / NF4_BLOCK))
      throw shapeError("dequantizeNf4", "half a byte a value and a factor for each 64", {
        codes,
        absmax,
        shape,
      });
    return { shape, dtype: absmax.dtype };
  },
  decompose({ codes, absmax, shape }) {
    const blocks = absmax.shape[0]!;
    const values = reshape(gatherRows(literal(pairs), codes), { shape: [blocks, NF4_BLOCK] });
    return reshape(mul(values, reshape(absmax, { shape: [blocks, 1] })), { shape });
  },
  onnx(emit, { codes, absmax, shape }) {
    const index = emit.node("Cast", [codes], { to: 6 });
    const values = emit.node("Gather", [emit.constant(pairs), index], { axis: 0 });
    const blocks = emit.node("Reshape", [values, emit.ints([-1, NF4_BLOCK])]);
    const factors = emit.node("Reshape", [absmax, emit.ints([-1, 1])]);
    return emit.node("Reshape", [emit.node("Mul", [blocks, factors]), emit.ints(shape)]);
  },
  cases: [
    {
      shapes: { codes: [96], absmax: [3] },
      ids: { codes: 256 },
      attrs: { shape: [3, 64] },
    },
    {
      shapes: { codes: [32], absmax: [1] },
      ids: { codes: 256 },
      attrs: { shape: [64] },
      known: {
        inputs: { codes: [0x0f, ...new Array<number>(31).fill(0x77)], absmax: [2] },
        output: [-2, 2, ...new Array<number>(62).fill(0)],
      },
    },
  ],
});
