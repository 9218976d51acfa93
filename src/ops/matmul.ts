import type { Node } from "../ir/node.ts";
import { sizeOf } from "../tensor/shape.ts";
import { checkDtypes, defineOp, type Op, shapeError } from "./define.ts";
import { multiplyMatrices } from "./matmul-loop.ts";
import { emitBatched } from "./matmul-onnx.ts";

/**
 * Matrix product over the last two axes: a (…, M, K) · b (…, K, N) → (…, M, N). `transA`, `transB` read the
 * stored matrix transposed. Leading axes are equal.
 */
export const matmul: Op<["a", "b"], object, { transA: boolean; transB: boolean }> = defineOp(
  "matmul",
  {
    inputs: ["a", "b"],
    defaults: { transA: false as boolean, transB: false as boolean },
    infer({ a, b, transA, transB }) {
      const [M, K] = matrix(a, transA);
      const [L, N] = matrix(b, transB);
      const batch = a.shape.slice(0, -2);
      if (K === undefined || K !== L || batch.join() !== b.shape.slice(0, -2).join())
        throw shapeError("matmul", "matrices whose inner and leading axes agree", { a, b });
      checkDtypes("matmul", { a, b });
      return { shape: [...batch, M!, N!], dtype: a.dtype };
    },
    evaluate({ a, b, transA, transB, node }) {
      const [M, N] = node.shape.slice(-2) as [number, number];
      const K = a.shape.at(transA ? -2 : -1)!;
      const out = new Float64Array(sizeOf(node.shape));
      for (let batch = 0; batch * M * N < out.length; batch++) {
        const left = a.data.subarray(batch * M * K, (batch + 1) * M * K);
        const right = b.data.subarray(batch * K * N, (batch + 1) * K * N);
        const product = out.subarray(batch * M * N, (batch + 1) * M * N);
        multiplyMatrices({ a: left, b: right, transA, transB }, { M, N, K }, product);
      }
      return out;
    },
    gradient: ({ a, b, transA, transB, dy }) => ({
      a: () =>
        transA
          ? matmul(b, dy, { transA: transB, transB: true })
          : matmul(dy, b, { transB: !transB }),
      b: () =>
        transB
          ? matmul(dy, a, { transA: true, transB: transA })
          : matmul(a, dy, { transA: !transA }),
    }),
    cases: [
      { shapes: { a: [2, 3], b: [3, 4] } },
      { shapes: { a: [2, 3], b: [4, 3] }, attrs: { transB: true } },
      { shapes: { a: [3, 2], b: [3, 4] }, attrs: { transA: true } },
      { shapes: { a: [2, 3, 2], b: [2, 4, 3] }, attrs: { transA: true, transB: true } },
      // an odd number of products, large enough to be halved
      { shapes: { a: [3, 96, 88], b: [3, 88, 96] } },
      { shapes: { a: [3, 96, 88], b: [3, 96, 88] }, attrs: { transB: true } },
      { shapes: { a: [1, 3, 96, 88], b: [1, 3, 96, 88] }, attrs: { transA: true } },
      {
        shapes: { a: [2, 2], b: [2, 2] },
        known: { inputs: { a: [1, 2, 3, 4], b: [5, 6, 7, 8] }, output: [19, 22, 43, 50] },
      },
    ],
    onnx(emit, { a, b, transA, transB, node }) {
      if (node.shape.length === 2)
        return emit.node("Gemm", [a, b], { transA: Number(transA), transB: Number(transB) });
      if (emit.profile === "cpu")
        return emitBatched(emit, { a, b, alpha: 1, transA, transB, node });
      const rank = node.shape.length;
      const perm = [...Array.from({ length: rank - 2 }, (_, i) => i), rank - 1, rank - 2];
      const flip = (value: string, isFlipped: boolean): string =>
        isFlipped ? emit.node("Transpose", [value], { perm }) : value;
      return emit.node("MatMul", [flip(a, transA), flip(b, transB)]);
    },
  },
);

function matrix({ shape }: Node, isTransposed: boolean): [number | undefined, number | undefined] {
  const rows = shape.at(-2);
  return shape.length < 2
    ? [undefined, undefined]
    : isTransposed
      ? [shape.at(-1), rows]
      : [rows, shape.at(-1)];
}
