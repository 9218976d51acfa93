import { add } from "./add.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { sameShape } from "../tensor/shape.ts";
import { mul } from "./mul.ts";
import { sigmoid } from "./sigmoid.ts";
import { silu } from "./silu.ts";
import { sub } from "./sub.ts";

/** silu(gate) · up. https://arxiv.org/abs/2002.05202 */
export const swiglu: Op<["gate", "up"]> = defineOp("swiglu", {
  inputs: ["gate", "up"],
  infer({ gate, up }) {
    if (!sameShape(gate.shape, up.shape))
      throw shapeError("swiglu", "two equal shapes", { gate, up });
    return gate;
  },
  decompose: ({ gate, up }) => mul(silu(gate), up),
  gradient: ({ gate, up, node, dy }) => ({
    gate: () => mul(dy, add(node, mul(sigmoid(gate), sub(up, node)))), // up · silu' = y + σ · (up − y)
    up: () => mul(dy, silu(gate)),
  }),
  cases: [
    { shapes: { gate: [3, 4], up: [3, 4] } },
    {
      shapes: { gate: [1], up: [1] },
      known: { inputs: { gate: [1], up: [2] }, output: [1.4621171572600098] },
    },
  ],
});
