import { defineOp, type Op } from "./define.ts";
import { div } from "./div.ts";
import { exp } from "./exp.ts";
import { mul } from "./mul.ts";
import { reduceMax } from "./reduce-max.ts";
import { reduceSum } from "./reduce-sum.ts";
import { stopGradient } from "./stop-gradient.ts";
import { sub } from "./sub.ts";

/** e^x over its sum along the last axis. */
export const softmax: Op<["x"]> = defineOp("softmax", {
  inputs: ["x"],
  infer: ({ x }) => x,
  decompose({ x }) {
    const last = [x.shape.length - 1];
    const e = exp(sub(x, stopGradient(reduceMax(x, { axes: last, keepDims: true }))));
    return div(e, reduceSum(e, { axes: last, keepDims: true }));
  },
  gradient: ({ node, dy }) => ({
    x() {
      const along = reduceSum(mul(dy, node), { axes: [node.shape.length - 1], keepDims: true });
      return mul(node, sub(dy, along));
    },
  }),
  onnx: (emit, { x }) => emit.node("Softmax", [x], { axis: -1 }),
  cases: [
    { shapes: { x: [2, 3, 5] } },
    { shapes: { x: [2] }, known: { inputs: { x: [0, Math.log(3)] }, output: [0.25, 0.75] } },
  ],
});
