import type { Node } from "../ir/node.ts";
import { add } from "./add.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { constant } from "./leaf.ts";
import { mean } from "./mean.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { rsqrt } from "./rsqrt.ts";
import { sumTo } from "./sum-to.ts";

/** x / √(mean(x², last axis) + eps) · weight.  x: (…, C), weight: (C).  https://arxiv.org/abs/1910.07467 */
export const rmsNorm: Op<["x", "weight"], object, { eps: number }> = defineOp("rmsNorm", {
  inputs: ["x", "weight"],
  defaults: { eps: 1e-6 },
  infer({ x, weight }) {
    if (weight.shape.length !== 1 || weight.shape[0] !== x.shape.at(-1))
      throw shapeError("rmsNorm", "a weight as long as its last axis", {
        x: x.shape,
        weight: weight.shape,
      });
    return x;
  },
  decompose: ({ x, weight, eps }) => mul(mul(x, inverseRms(x, eps)), weight),
  gradient({ x, weight, eps, dy }) {
    const r = inverseRms(x, eps);
    const xhat = mul(x, r);
    return {
      x() {
        const g = mul(dy, weight);
        return mul(r, add(g, neg(mul(xhat, meanLast(mul(g, xhat)))))); // r · (g − x̂ · mean(g · x̂))
      },
      weight: () => sumTo(mul(dy, xhat), { shape: weight.shape }),
    };
  },
  cases: [
    { shapes: { x: [2, 3, 8], weight: [8] } },
    { shapes: { x: [3, 4], weight: [4] }, attrs: { eps: 0.1 } },
    {
      shapes: { x: [1, 2], weight: [2] },
      attrs: { eps: 0.5 },
      known: {
        inputs: { x: [3, 4], weight: [1, 2] },
        output: [3 / Math.sqrt(13), 8 / Math.sqrt(13)],
      },
    },
  ],
});

function inverseRms(x: Node, eps: number): Node {
  return rsqrt(add(meanLast(mul(x, x)), constant(eps)));
}

function meanLast(x: Node): Node {
  return mean(x, { axes: [x.shape.length - 1], keepDims: true });
}
