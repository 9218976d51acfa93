import { defineOp, type Op, shapeError } from "./define.ts";
import { inverseRms } from "./inverse-rms.ts";
import { mean } from "./mean.ts";
import { mul } from "./mul.ts";
import { sub } from "./sub.ts";
import { sumTo } from "./sum-to.ts";

/** x / √(mean(x², last axis) + eps) · weight.  x: (…, C), weight: (C).  https://arxiv.org/abs/1910.07467 */
export const rmsNorm: Op<["x", "weight"], object, { eps: number }> = defineOp("rmsNorm", {
  inputs: ["x", "weight"],
  defaults: { eps: 1e-6 },
  infer({ x, weight }) {
    if (weight.shape.length !== 1 || weight.shape[0] !== x.shape.at(-1))
      throw shapeError("rmsNorm", "a weight as long as its last axis", { x, weight });
    return x;
  },
  decompose: ({ x, weight, eps }) => mul(mul(x, inverseRms(x, { eps })), weight),
  gradient({ x, weight, eps, dy }) {
    const r = inverseRms(x, { eps });
    return {
      x() {
        const g = mul(dy, weight);
        const along = mean(mul(g, x), { axes: [x.shape.length - 1], keepDims: true });
        return sub(mul(g, r), mul(x, mul(along, mul(r, mul(r, r))))); // r · g − x · r³ · mean(g · x)
      },
      weight: () => sumTo(mul(dy, mul(x, r)), { shape: weight.shape }),
    };
  },
  onnx(emit, { x, weight, eps }) {
    // on WebGPU the second result is not the inverse deviation, and gradients would be wrong without a sign of it
    if (emit.profile !== "cpu") return undefined;
    const attrs = { axis: -1, epsilon: eps };
    const [y, r] = emit.results(2, "SimplifiedLayerNormalization", [x, weight], attrs);
    emit.remember(`inverseRms ${x} ${eps}`, r!);
    return y;
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
