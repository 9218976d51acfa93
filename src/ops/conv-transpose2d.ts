import { sizeOf } from "../tensor/shape.ts";
import { columnsImage, resultMatrix, weightMatrix } from "./conv-columns.ts";
import {
  type ConvAttrs,
  convDefaults,
  convShape,
  forEachConvRow,
  reachOf,
} from "./conv-geometry.ts";
import { conv2d } from "./conv2d.ts";
import { correlate2d } from "./correlate2d.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { matmul } from "./matmul.ts";

/**
 * The adjoint of conv2d in its image: y (B, Co, Ho, Wo) and the weight (Co, Ci/groups, kh, kw) give an image
 * (B, Ci, H, W) of the given `size` [H, W]. Upsampling layers, and the gradient of a convolution.
 */
export const convTranspose2d: Op<["y", "weight"], { size: readonly number[] }, ConvAttrs> =
  defineOp("convTranspose2d", {
    inputs: ["y", "weight"],
    defaults: convDefaults,
    infer({ y, weight, size, ...attrs }) {
      const image = [y.shape[0]!, weight.shape[1]! * attrs.groups, ...size];
      if (convShape(image, weight.shape, attrs).join() !== y.shape.join())
        throw shapeError("convTranspose2d", "the result of a convolution of that size", {
          y,
          weight,
          size,
        });
      return { shape: image, dtype: y.dtype };
    },
    evaluate({ y, weight, node, size: _, ...attrs }) {
      const out = new Float64Array(sizeOf(node.shape));
      forEachConvRow({ image: node.shape, result: y.shape, weight: weight.shape }, attrs, (row) => {
        const w = weight.data[row.weight]!;
        const { result, from, to, step } = row;
        const image = row.image + row.shift;
        for (let i = from; i < to; i++) out[image + i * step]! += w * y.data[result + i]!;
      });
      return out;
    },
    decompose({ y, weight, node, size: _, ...attrs }) {
      const sizes = { image: node.shape, result: y.shape, kernel: weight.shape.slice(2) };
      const matrix = resultMatrix(y, attrs.groups);
      const columns = matmul(weightMatrix(weight, attrs.groups), matrix, { transA: true });
      return columnsImage(columns, sizes, attrs);
    },
    gradient: ({ y: image, weight, node: _, size: _size, dy, ...attrs }) => ({
      y: () => conv2d(dy, weight, attrs),
      weight: () => correlate2d(dy, image, { ...attrs, kernel: weight.shape.slice(2) }),
    }),
    onnx(emit, { y, weight, node, size, ...attrs }) {
      const [from, kernel] = node.inputs.map(({ shape }) => shape.slice(2)) as [number[], number[]];
      const { stride, padding, dilation, groups } = attrs;
      const extra = ([0, 1] as const).map(
        (axis) =>
          size[axis]! +
          2 * padding[axis]! -
          reachOf(kernel[axis]!, axis, attrs) -
          (from[axis]! - 1) * stride[axis]!,
      );
      return emit.node("ConvTranspose", [y, weight], {
        kernel_shape: kernel,
        strides: stride,
        pads: [...padding, ...padding],
        dilations: dilation,
        group: groups,
        output_padding: extra,
      });
    },
    cases: [
      {
        shapes: { y: [2, 4, 5, 4], weight: [4, 3, 3, 3] },
        attrs: { padding: [1, 1], size: [5, 4] },
      },
      {
        shapes: { y: [1, 6, 3, 3], weight: [6, 2, 3, 2] },
        attrs: { stride: [2, 3], groups: 2, size: [8, 9] },
      },
      {
        shapes: { y: [2, 2, 3, 7], weight: [2, 2, 2, 3] },
        attrs: { stride: [2, 1], padding: [1, 2], dilation: [2, 2], size: [6, 7] },
      },
      {
        shapes: { y: [1, 1, 1, 2], weight: [1, 1, 2, 2] },
        attrs: { size: [2, 3] },
        known: {
          inputs: { y: [1, 2], weight: [1, 10, 100, 1000] },
          output: [1, 12, 20, 100, 1200, 2000],
        },
      },
    ],
  });
