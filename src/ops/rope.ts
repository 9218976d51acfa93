import type { Node } from "../ir/node.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { add } from "./add.ts";
import { concat } from "./concat.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { reshape } from "./reshape.ts";
import { slice } from "./slice.ts";
import { sub } from "./sub.ts";

/**
 * Rotary position embedding in the half-split layout: for each row, head and i < R/2 the pair (x[i], x[i + R/2])
 * is rotated by its angle; features from R on pass through. x: (N, H, D), cos and sin: (N, R/2).
 * https://arxiv.org/abs/2104.09864
 */
export const rope: Op<["x", "cos", "sin"]> = defineOp("rope", {
  inputs: ["x", "cos", "sin"],
  infer({ x, cos, sin }) {
    const half = cos.shape[1] ?? 0;
    const fits = x.shape.length === 3 && cos.shape[0] === x.shape[0] && 2 * half <= x.shape[2]!;
    if (!fits || cos.shape.join() !== sin.shape.join())
      throw shapeError("rope", "x (N, H, D) with cos and sin (N, R/2), R ≤ D", { x, cos, sin });
    return x;
  },
  decompose({ x, cos, sin }) {
    const [N, half] = cos.shape as [number, number];
    const [c, s] = [cos, sin].map((angles) => reshape(angles, { shape: [N, 1, half] })) as [
      Node,
      Node,
    ];
    const [, , D] = x.shape as [number, number, number];
    const part = (start: number, end: number): Node => slice(x, { axis: 2, start, end });
    const [x1, x2] = [part(0, half), part(half, 2 * half)];
    const rotated = [sub(mul(x1, c), mul(x2, s)), add(mul(x2, c), mul(x1, s))];
    return concat(2 * half < D ? [...rotated, part(2 * half, D)] : rotated, { axis: 2 });
  },
  onnx(emit, { x, cos, sin, node }) {
    const [N, H, D] = node.shape as [number, number, number];
    const positions = emit.constant(positionsOf(N));
    const flat = emit.node("Reshape", [x, emit.ints([1, N, H * D])]);
    const rotated = emit.node("com.microsoft.RotaryEmbedding", [flat, positions, cos, sin], {
      num_heads: H,
      rotary_embedding_dim: 2 * node.inputs[1]!.shape[1]!,
    });
    return emit.node("Reshape", [rotated, emit.ints([N, H, D])]);
  },
  gradient: ({ cos, sin, dy }) => ({ x: () => rope(dy, cos, neg(sin)) }), // angles never train
  cases: [
    { shapes: { x: [3, 2, 8], cos: [3, 4], sin: [3, 4] }, fixed: ["cos", "sin"] },
    { shapes: { x: [3, 2, 8], cos: [3, 2], sin: [3, 2] }, fixed: ["cos", "sin"] },
    {
      shapes: { x: [1, 1, 2], cos: [1, 1], sin: [1, 1] },
      fixed: ["cos", "sin"],
      known: { inputs: { x: [3, 5], cos: [0], sin: [1] }, output: [-5, 3] },
    },
  ],
});

/** The positions that were asked for last: layers share them. */
let known = tensor("i64", [1, 0], new BigInt64Array(0));

/** 0 to N − 1, (1, N). */
function positionsOf(N: number): Tensor {
  if (known.shape[1] !== N) {
    const data = BigInt64Array.from({ length: N }, (_, i) => BigInt(i));
    known = tensor("i64", [1, N], data);
  }
  return known;
}
