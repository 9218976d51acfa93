import { defineOp, type Op } from "./define.ts";
import { constant } from "./leaf.ts";
import { matmul } from "./matmul.ts";
import { emitBatched } from "./matmul-onnx.ts";
import { mul } from "./mul.ts";

/** alpha · a·b over the last two axes, as `matmul`: engines scale inside the product. */
export const scaledMatmul: Op<["a", "b"], { alpha: number }, { transA: boolean; transB: boolean }> =
  defineOp("scaledMatmul", {
    inputs: ["a", "b"],
    defaults: { transA: false as boolean, transB: false as boolean },
    infer: ({ a, b, transA, transB }) => matmul(a, b, { transA, transB }),
    decompose: ({ a, b, alpha, transA, transB }) =>
      mul(matmul(a, b, { transA, transB }), constant(alpha)),
    onnx(emit, { a, b, alpha, transA, transB, node }) {
      if (node.shape.length === 2)
        return emit.node("Gemm", [a, b], {
          alpha,
          transA: Number(transA),
          transB: Number(transB),
        });
      return emit.profile === "cpu"
        ? emitBatched(emit, { a, b, alpha, transA, transB, node })
        : undefined;
    },
    cases: [
      { shapes: { a: [2, 3], b: [4, 3] }, attrs: { alpha: 0.5, transB: true } },
      { shapes: { a: [2, 3, 2], b: [2, 3, 4] }, attrs: { alpha: -2, transA: true } },
      {
        shapes: { a: [1, 2], b: [2, 1] },
        attrs: { alpha: 3 },
        known: { inputs: { a: [1, 2], b: [3, 4] }, output: [33] },
      },
    ],
  });
