import { add } from "./add.ts";
import { defineOp, type Op } from "./define.ts";
import { constant } from "./leaf.ts";
import { matmul } from "./matmul.ts";
import { mul } from "./mul.ts";

/** c + alpha · a·b for matrices (M, K), (K, N) and c (M, N): a product that adds into what is there already. */
export const gemm: Op<
  ["a", "b", "c"],
  object,
  { alpha: number; transA: boolean; transB: boolean }
> = defineOp("gemm", {
  inputs: ["a", "b", "c"],
  defaults: { alpha: 1, transA: false as boolean, transB: false as boolean },
  infer: ({ a, b, c, transA, transB }) => add(c, matmul(a, b, { transA, transB })),
  decompose({ a, b, c, alpha, transA, transB }) {
    const product = matmul(a, b, { transA, transB });
    return add(c, alpha === 1 ? product : mul(product, constant(alpha)));
  },
  onnx: (emit, { a, b, c, alpha, transA, transB }) =>
    emit.node("Gemm", [a, b, c], { alpha, transA: Number(transA), transB: Number(transB) }),
  cases: [
    { shapes: { a: [2, 3], b: [4, 3], c: [2, 4] }, attrs: { alpha: 0.5, transB: true } },
    { shapes: { a: [3, 2], b: [3, 4], c: [2, 4] }, attrs: { transA: true } },
    {
      shapes: { a: [1, 2], b: [2, 1], c: [1, 1] },
      attrs: { alpha: 0.5 },
      known: { inputs: { a: [1, 2], b: [3, 4], c: [1] }, output: [6.5] },
    },
  ],
});
