import { add } from "./add.ts";
import { defineOp, type Op } from "./define.ts";
import { erf } from "./erf.ts";
import { constant } from "./leaf.ts";
import { mul } from "./mul.ts";
import { tanh } from "./tanh.ts";

/**
 * x · Φ(x), exact or by its tanh approximation (`approximate: "tanh"`; gelu_new, gelu_pytorch_tanh).
 * https://arxiv.org/abs/1606.08415
 */
export const gelu: Op<["x"], object, { approximate: string }> = defineOp("gelu", {
  inputs: ["x"],
  defaults: { approximate: "none" },
  infer: ({ x }) => x,
  decompose({ x, approximate }) {
    const half = mul(x, constant(0.5));
    if (approximate === "none")
      return mul(half, add(constant(1), erf(mul(x, constant(Math.SQRT1_2)))));
    const cubed = mul(mul(x, x), mul(x, constant(0.044715)));
    return mul(half, add(constant(1), tanh(mul(add(x, cubed), constant(Math.sqrt(2 / Math.PI))))));
  },
  cases: [
    { shapes: { x: [2, 3] } },
    { shapes: { x: [2, 3] }, attrs: { approximate: "tanh" } },
    {
      shapes: { x: [2] },
      known: { inputs: { x: [1, -1] }, output: [0.8413447460685429, -0.15865525393145707] },
    },
    {
      shapes: { x: [1] },
      attrs: { approximate: "tanh" },
      known: { inputs: { x: [1] }, output: [0.8411919906082768] },
    },
  ],
});
