import { add } from "./add.ts";
import { defineOp, type Op } from "./define.ts";
import { div } from "./div.ts";
import { exp } from "./exp.ts";
import { constant } from "./leaf.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { sub } from "./sub.ts";

/** 1 / (1 + e⁻ˣ). */
export const sigmoid: Op<["x"]> = defineOp("sigmoid", {
  inputs: ["x"],
  infer: ({ x }) => x,
  decompose: ({ x }) => div(constant(1), add(constant(1), exp(neg(x)))),
  gradient: ({ node, dy }) => ({ x: () => mul(dy, mul(node, sub(constant(1), node))) }),
  onnx: (emit, { x }) => emit.node("Sigmoid", [x]),
  cases: [
    { shapes: { x: [2, 3] } },
    { shapes: { x: [2] }, known: { inputs: { x: [0, 1] }, output: [0.5, 0.7310585786300049] } },
  ],
});
