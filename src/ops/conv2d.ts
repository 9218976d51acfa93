import { sizeOf } from "../tensor/shape.ts";
import { imageColumns, matrixResult, weightMatrix } from "./conv-columns.ts";
import { type ConvAttrs, convDefaults, convShape, forEachConvRow } from "./conv-geometry.ts";
import { convTranspose2d } from "./conv-transpose2d.ts";
import { correlate2d } from "./correlate2d.ts";
import { defineOp, type Op } from "./define.ts";
import { matmul } from "./matmul.ts";

/**
 * Convolution (cross-correlation, as in PyTorch) of an image x (B, Ci, H, W) by a weight (Co, Ci/groups, kh, kw):
 * (B, Co, Ho, Wo). What LoRA attaches to in image models. https://arxiv.org/abs/1603.07285
 */
export const conv2d: Op<["x", "weight"], object, ConvAttrs> = defineOp("conv2d", {
  inputs: ["x", "weight"],
  defaults: convDefaults,
  infer: ({ x, weight, ...attrs }) => ({
    shape: convShape(x.shape, weight.shape, attrs),
    dtype: x.dtype,
  }),
  evaluate({ x, weight, node, ...attrs }) {
    const out = new Float64Array(sizeOf(node.shape));
    forEachConvRow({ image: x.shape, result: node.shape, weight: weight.shape }, attrs, (row) => {
      const w = weight.data[row.weight]!;
      const { result, from, to, step } = row;
      const image = row.image + row.shift;
      for (let i = from; i < to; i++) out[result + i]! += w * x.data[image + i * step]!;
    });
    return out;
  },
  decompose({ x, weight, node, ...attrs }) {
    const sizes = { image: x.shape, result: node.shape, kernel: weight.shape.slice(2) };
    const columns = imageColumns(x, sizes, attrs);
    return matrixResult(matmul(weightMatrix(weight, attrs.groups), columns), node.shape);
  },
  gradient: ({ x, weight, node: _, dy, ...attrs }) => ({
    x: () => convTranspose2d(dy, weight, { ...attrs, size: x.shape.slice(2) }),
    weight: () => correlate2d(x, dy, { ...attrs, kernel: weight.shape.slice(2) }),
  }),
  onnx: (emit, { x, weight, node, stride, padding, dilation, groups }) =>
    emit.node("Conv", [x, weight], {
      kernel_shape: node.inputs[1]!.shape.slice(2),
      strides: stride,
      pads: [...padding, ...padding],
      dilations: dilation,
      group: groups,
    }),
  cases: [
    { shapes: { x: [2, 3, 5, 4], weight: [4, 3, 3, 3] }, attrs: { padding: [1, 1] } },
    { shapes: { x: [1, 4, 7, 8], weight: [6, 2, 3, 2] }, attrs: { stride: [2, 3], groups: 2 } },
    {
      shapes: { x: [2, 2, 6, 7], weight: [2, 2, 2, 3] },
      attrs: { stride: [2, 1], padding: [1, 2], dilation: [2, 2] },
    },
    { shapes: { x: [2, 3, 4, 4], weight: [5, 3, 1, 1] } },
    { shapes: { x: [1, 3, 5, 5], weight: [3, 1, 3, 3] }, attrs: { padding: [1, 1], groups: 3 } },
    {
      shapes: { x: [1, 1, 2, 3], weight: [1, 1, 2, 2] },
      known: {
        inputs: { x: [1, 2, 3, 4, 5, 6], weight: [1, 10, 100, 1000] },
        output: [5421, 6532],
      },
    },
  ],
});
