import { add } from "./add.ts";
import { defineOp, type Op } from "./define.ts";
import { constant } from "./leaf.ts";
import { mul } from "./mul.ts";
import { sigmoid } from "./sigmoid.ts";
import { sub } from "./sub.ts";

const SLOPE = 1.702;

/** x · sigmoid(1.702 · x), the approximation of gelu that CLIP was trained with. https://arxiv.org/abs/1606.08415 §2 */
export const quickGelu: Op<["x"]> = defineOp("quickGelu", {
  inputs: ["x"],
  infer: ({ x }) => x,
  decompose: ({ x }) => mul(x, sigmoid(mul(x, constant(SLOPE)))),
  gradient: ({ x, node, dy }) => ({
    x() {
      const s = sigmoid(mul(x, constant(SLOPE)));
      return mul(dy, add(s, mul(sub(node, mul(node, s)), constant(SLOPE)))); // σ + 1.702 · (y − y · σ)
    },
  }),
  onnx: (emit, { x }) => emit.node("com.microsoft.QuickGelu", [x], { alpha: SLOPE }),
  cases: [
    { shapes: { x: [2, 3] } },
    {
      shapes: { x: [3] },
      known: {
        inputs: { x: [0, 1, -1] },
        output: [0, 0.8457957659328212, -0.15420423406717877],
      },
    },
  ],
});
