import { defineOp, type Op } from "./define.ts";
import { dequantizeNf4 } from "./dequantize-nf4.ts";
import { matmul } from "./matmul.ts";

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
    ],
  });
