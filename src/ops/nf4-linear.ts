import { defineOp, type Op } from "./define.ts";
import { dequantizeNf4 } from "./dequantize-nf4.ts";
import { matmul } from "./matmul.ts";

/** NF4 of bitsandbytes (`create_normal_map`), written out: its known values must not come from the code they check. */
const LEVELS = [
  ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453],
  ...[-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0],
  ...[0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
  ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1],
];
const ASCENDING = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
const DESCENDING = [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10];
const ZEROS = new Array<number>(24).fill(0x77);

/** x·Wᵀ with W (out, in) as NF4 codes; see `dequantizeNf4`. x: (N, in) → (N, out). */
export const nf4Linear: Op<["x", "codes", "absmax"], { shape: readonly [number, number] }> =
  defineOp("nf4Linear", {
    inputs: ["x", "codes", "absmax"],
    infer: ({ x, codes, absmax, shape }) =>
      matmul(x, dequantizeNf4(codes, absmax, { shape }), { transB: true }),
    decompose: ({ x, codes, absmax, shape }) =>
      matmul(x, dequantizeNf4(codes, absmax, { shape }), { transB: true }),
    onnx(emit, { x, codes, absmax, shape: [N, K], node }) {
      // its kernel exists on the CPU alone, and only for the weight read transposed
      if (emit.profile !== "cpu") return undefined;
      const bytes = node.inputs[1]!.dtype === "u8" ? codes : emit.node("Cast", [codes], { to: 2 });
      const attrs = { N, K, block_size: 64, quant_type: 1 };
      return emit.node("com.microsoft.MatMulBnb4", [x, bytes, absmax], attrs);
    },
    cases: [
      {
        shapes: { x: [3, 64], codes: [160], absmax: [5] },
        ids: { codes: 256 },
        attrs: { shape: [5, 64] },
      },
      {
        shapes: { x: [1, 128], codes: [128], absmax: [4] },
        ids: { codes: 256 },
        attrs: { shape: [2, 128] },
      },
      {
        // columns of the unit matrix read the codebook of bitsandbytes out of two rows of weights
        shapes: { x: [16, 64], codes: [64], absmax: [2] },
        ids: { codes: 256 },
        attrs: { shape: [2, 64] },
        known: {
          inputs: {
            x: Array.from({ length: 16 * 64 }, (_, i) => (i % 64 === Math.floor(i / 64) ? 1 : 0)),
            codes: [...ASCENDING, ...ZEROS, ...DESCENDING, ...ZEROS],
            absmax: [1, 2],
          },
          output: LEVELS.flatMap((level, i) => [level, 2 * LEVELS[15 - i]!]),
        },
      },
    ],
  });
