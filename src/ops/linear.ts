import { defineOp, type Op } from "./define.ts";
import { matmul } from "./matmul.ts";

/**
 * x·Wᵀ with x (N, in) and W (out, in) as PyTorch's Linear stores it; `fanInFanOut`: W is (in, out), as in
 * transformers' Conv1D. What LoRA attaches to; `module` names the layer where its weight is another layer's (tied heads).
 */
export const linear: Op<["x", "weight"], object, { fanInFanOut: boolean; module: string }> =
  defineOp("linear", {
    inputs: ["x", "weight"],
    defaults: { fanInFanOut: false as boolean, module: "" },
    infer: ({ x, weight, fanInFanOut }) => matmul(x, weight, { transB: !fanInFanOut }),
    decompose: ({ x, weight, fanInFanOut }) => matmul(x, weight, { transB: !fanInFanOut }),
    cases: [
      { shapes: { x: [3, 4], weight: [2, 4] } },
      { shapes: { x: [3, 4], weight: [4, 2] }, attrs: { fanInFanOut: true } },
      {
        shapes: { x: [1, 2], weight: [2, 2] },
        known: { inputs: { x: [1, 2], weight: [1, 2, 3, 4] }, output: [5, 11] },
      },
    ],
  });
