import { sizeOf } from "../tensor/shape.ts";
import { imageColumns, resultMatrix } from "./conv-columns.ts";
import { type ConvAttrs, convDefaults, convShape, forEachConvRow } from "./conv-geometry.ts";
import { conv2d } from "./conv2d.ts";
import { convTranspose2d } from "./conv-transpose2d.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { matmul } from "./matmul.ts";
import { reshape } from "./reshape.ts";

/**
 * The adjoint of conv2d in its weight: how each pixel of y (B, Co, Ho, Wo) goes with what a kernel of the given
 * size [kh, kw] sees of x (B, Ci, H, W) there, summed: (Co, Ci/groups, kh, kw). A weight's gradient.
 */
export const correlate2d: Op<["x", "y"], { kernel: readonly number[] }, ConvAttrs> = defineOp(
  "correlate2d",
  {
    inputs: ["x", "y"],
    defaults: convDefaults,
    infer({ x, y, kernel, ...attrs }) {
      const weight = [y.shape[1]!, x.shape[1]! / attrs.groups, ...kernel];
      if (convShape(x.shape, weight, attrs).join() !== y.shape.join())
        throw shapeError("correlate2d", "an image and the result of a convolution of it", {
          x,
          y,
          kernel,
        });
      return { shape: weight, dtype: x.dtype };
    },
    evaluate({ x, y, node, kernel: _, ...attrs }) {
      const out = new Float64Array(sizeOf(node.shape));
      forEachConvRow({ image: x.shape, result: y.shape, weight: node.shape }, attrs, (row) => {
        const { result, from, to, step } = row;
        const image = row.image + row.shift;
        let sum = 0;
        for (let i = from; i < to; i++) sum += x.data[image + i * step]! * y.data[result + i]!;
        out[row.weight]! += sum;
      });
      return out;
    },
    decompose({ x, y, node, kernel, ...attrs }) {
      const columns = imageColumns(x, { image: x.shape, result: y.shape, kernel }, attrs);
      const weights = matmul(resultMatrix(y, attrs.groups), columns, { transB: true });
      return reshape(weights, { shape: node.shape });
    },
    gradient: ({ x, y, node: _, kernel: _kernel, dy, ...attrs }) => ({
      x: () => convTranspose2d(y, dy, { ...attrs, size: x.shape.slice(2) }),
      y: () => conv2d(x, dy, attrs),
    }),
    cases: [
      {
        shapes: { x: [2, 3, 5, 4], y: [2, 4, 5, 4] },
        attrs: { padding: [1, 1], kernel: [3, 3] },
      },
      {
        shapes: { x: [1, 4, 8, 9], y: [1, 6, 3, 3] },
        attrs: { stride: [2, 3], groups: 2, kernel: [3, 2] },
      },
      {
        shapes: { x: [2, 2, 6, 7], y: [2, 2, 3, 7] },
        attrs: { stride: [2, 1], padding: [1, 2], dilation: [2, 2], kernel: [2, 3] },
      },
      {
        shapes: { x: [1, 1, 2, 3], y: [1, 1, 1, 2] },
        attrs: { kernel: [2, 2] },
        known: { inputs: { x: [1, 2, 3, 4, 5, 6], y: [1, 10] }, output: [21, 32, 54, 65] },
      },
    ],
  },
);
