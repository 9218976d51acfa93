import { add } from "./add.ts";
import { defineOp, type Op } from "./define.ts";
import { mul } from "./mul.ts";
import { sigmoid } from "./sigmoid.ts";
import { sub } from "./sub.ts";

/** x · sigmoid(x), also called swish. https://arxiv.org/abs/1702.03118 */
export const silu: Op<["x"]> = defineOp("silu", {
  inputs: ["x"],
  infer: ({ x }) => x,
  decompose: ({ x }) => mul(x, sigmoid(x)),
  gradient: ({ x, node, dy }) => ({
    x: () => {
      const s = sigmoid(x);
      return mul(dy, add(s, sub(node, mul(node, s)))); // σ + y − y·σ
    },
  }),
  onnx: (emit, { x }) => emit.node("com.microsoft.QuickGelu", [x], { alpha: 1 }),
  cases: [
    { shapes: { x: [2, 3] } },
    { shapes: { x: [2] }, known: { inputs: { x: [0, 1] }, output: [0, 0.7310585786300049] } },
  ],
});
