import { add } from "./add.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { constant } from "./leaf.ts";
import { mean } from "./mean.ts";
import { mul } from "./mul.ts";
import { rsqrt } from "./rsqrt.ts";
import { sub } from "./sub.ts";

/** (x − mean) / √(variance + eps) · weight + bias over the last axis.  https://arxiv.org/abs/1607.06450 */
export const layerNorm: Op<["x", "weight", "bias"], object, { eps: number }> = defineOp(
  "layerNorm",
  {
    inputs: ["x", "weight", "bias"],
    defaults: { eps: 1e-5 },
    infer({ x, weight, bias }) {
      const C = x.shape.at(-1);
      if (weight.shape.join() !== String(C) || bias.shape.join() !== String(C))
        throw shapeError("layerNorm", "weight and bias as long as its last axis", {
          x,
          weight,
          bias,
        });
      return x;
    },
    decompose({ x, weight, bias, eps }) {
      const last = { axes: [x.shape.length - 1], keepDims: true };
      const centred = sub(x, mean(x, last));
      const r = rsqrt(add(mean(mul(centred, centred), last), constant(eps)));
      return add(mul(mul(centred, r), weight), bias);
    },
    onnx: (emit, { x, weight, bias, eps }) =>
      emit.node("LayerNormalization", [x, weight, bias], { axis: -1, epsilon: eps }),
    cases: [
      { shapes: { x: [2, 3, 8], weight: [8], bias: [8] } },
      {
        shapes: { x: [1, 2], weight: [2], bias: [2] },
        attrs: { eps: 0.75 },
        known: { inputs: { x: [1, 2], weight: [1, 2], bias: [0, 1] }, output: [-0.5, 2] },
      },
    ],
  },
);
