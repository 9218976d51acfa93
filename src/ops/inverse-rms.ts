import { add } from "./add.ts";
import { defineOp, type Op } from "./define.ts";
import { constant } from "./leaf.ts";
import { mean } from "./mean.ts";
import { mul } from "./mul.ts";
import { rsqrt } from "./rsqrt.ts";

/** 1 / √(mean(x², last axis) + eps), the factor of `rmsNorm`. x: (…, C) → (…, 1). */
export const inverseRms: Op<["x"], { eps: number }> = defineOp("inverseRms", {
  inputs: ["x"],
  infer: ({ x }) => ({ shape: [...x.shape.slice(0, -1), 1], dtype: x.dtype }),
  decompose({ x, eps }) {
    const square = mean(mul(x, x), { axes: [x.shape.length - 1], keepDims: true });
    return rsqrt(add(square, constant(eps)));
  },
  onnx(emit, { x, eps, node }) {
    const known = emit.recall(`inverseRms ${x} ${eps}`); // the second result of a norm of the same values
    if (known !== undefined) return known;
    const axis = emit.ints([node.shape.length - 1]);
    const square = emit.node("ReduceMean", [emit.node("Mul", [x, x]), axis], { keepdims: 1 });
    const deviation = emit.node("Sqrt", [emit.node("Add", [square, emit.scalar(eps)])]);
    return emit.node("Reciprocal", [deviation]);
  },
  cases: [
    { shapes: { x: [2, 3, 8] }, attrs: { eps: 0.1 } },
    {
      shapes: { x: [1, 2] },
      attrs: { eps: 0.5 },
      known: { inputs: { x: [3, 4] }, output: [1 / Math.sqrt(13)] },
    },
  ],
});
