import { sameShape } from "../tensor/shape.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { gelu } from "./gelu.ts";
import { mul } from "./mul.ts";

/** x · gelu(gate). https://arxiv.org/abs/2002.05202 */
export const geglu: Op<["x", "gate"]> = defineOp("geglu", {
  inputs: ["x", "gate"],
  infer({ x, gate }) {
    if (!sameShape(x.shape, gate.shape)) throw shapeError("geglu", "two equal shapes", { x, gate });
    return x;
  },
  decompose: ({ x, gate }) => mul(x, gelu(gate)),
  cases: [
    { shapes: { x: [3, 4], gate: [3, 4] } },
    {
      shapes: { x: [2], gate: [2] },
      known: { inputs: { x: [2, 3], gate: [1, 0] }, output: [1.6826894921370859, 0] },
    },
  ],
});
