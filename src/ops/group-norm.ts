import { add } from "./add.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { mul } from "./mul.ts";
import { reshape } from "./reshape.ts";
import { standardize } from "./standardize.ts";

/**
 * (x − mean) / √(variance + eps) · weight + bias, mean and variance over each of `groups` parts of the channels and
 * all pixels.  x: (B, C, H, W), weight and bias: (C).  https://arxiv.org/abs/1803.08494
 */
export const groupNorm: Op<["x", "weight", "bias"], { groups: number }, { eps: number }> = defineOp(
  "groupNorm",
  {
    inputs: ["x", "weight", "bias"],
    defaults: { eps: 1e-5 },
    infer({ x, weight, bias, groups }) {
      const C = x.shape[1]!;
      const fits = [weight, bias].every(({ shape }) => shape.join() === String(C));
      if (x.shape.length !== 4 || C % groups !== 0 || !fits)
        throw shapeError(
          "groupNorm",
          `(B, C, H, W) with C a multiple of ${groups}, and C weights and biases`,
          { x, weight, bias },
        );
      return x;
    },
    decompose({ x, weight, bias, groups, eps }) {
      const shape = [weight.shape[0]!, 1, 1];
      const scaled = mul(standardize(x, { groups, eps }), reshape(weight, { shape }));
      return add(scaled, reshape(bias, { shape }));
    },
    cases: [
      { shapes: { x: [2, 4, 2, 3], weight: [4], bias: [4] }, attrs: { groups: 2 } },
      { shapes: { x: [1, 3, 3, 2], weight: [3], bias: [3] }, attrs: { groups: 1, eps: 0.1 } },
      {
        shapes: { x: [1, 2, 1, 1], weight: [2], bias: [2] },
        attrs: { groups: 1, eps: 0.75 },
        known: { inputs: { x: [1, 2], weight: [1, 2], bias: [0, 1] }, output: [-0.5, 2] },
      },
    ],
  },
);
