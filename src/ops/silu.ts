import { add } from "./add.ts";
import { defineOp, type Op } from "./define.ts";
import { constant } from "./leaf.ts";
import { mul } from "./mul.ts";
import { sigmoid } from "./sigmoid.ts";
import { sub } from "./sub.ts";

/** x · sigmoid(x), also called swish. https://arxiv.org/abs/1702.03118 */
export const silu: Op<["x"]> = defineOp("silu", {
  inputs: ["x"],
  infer: ({ x }) => x,
  decompose: ({ x }) => mul(x, sigmoid(x)),
  gradient: ({ x, dy }) => ({
    x: () => {
      const s = sigmoid(x);
      return mul(dy, mul(s, add(constant(1), mul(x, sub(constant(1), s)))));
    },
  }),
  cases: [
    { shapes: { x: [2, 3] } },
    { shapes: { x: [2] }, known: { inputs: { x: [0, 1] }, output: [0, 0.7310585786300049] } },
  ],
});
