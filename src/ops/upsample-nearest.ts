import { tensor } from "../tensor/tensor.ts";
import { broadcastTo } from "./broadcast-to.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { reduceSum } from "./reduce-sum.ts";
import { reshape } from "./reshape.ts";

/** Each pixel of x (B, C, H, W) repeated `scale` times in both directions: (B, C, scale · H, scale · W). */
export const upsampleNearest: Op<["x"], object, { scale: number }> = defineOp("upsampleNearest", {
  inputs: ["x"],
  defaults: { scale: 2 },
  infer({ x, scale }) {
    const [B, C, H, W] = x.shape as [number, number, number, number];
    if (x.shape.length !== 4) throw shapeError("upsampleNearest", "an image (B, C, H, W)", { x });
    return { shape: [B, C, scale * H, scale * W], dtype: x.dtype };
  },
  decompose({ x, scale, node }) {
    const [B, C, H, W] = x.shape as [number, number, number, number];
    const cells = reshape(x, { shape: [B * C, H, 1, W, 1] });
    const repeated = broadcastTo(cells, { shape: [B * C, H, scale, W, scale] });
    return reshape(repeated, { shape: node.shape });
  },
  gradient: ({ x, scale, dy }) => ({
    x() {
      const [B, C, H, W] = x.shape as [number, number, number, number];
      const cells = reshape(dy, { shape: [B * C, H, scale, W, scale] });
      return reshape(reduceSum(cells, { axes: [2, 4] }), { shape: x.shape });
    },
  }),
  onnx: (emit, { x, scale }) =>
    emit.node(
      "Resize",
      [x, "", emit.constant(tensor("f32", [4], Float32Array.of(1, 1, scale, scale)))],
      { mode: "nearest", coordinate_transformation_mode: "asymmetric", nearest_mode: "floor" },
    ),
  cases: [
    { shapes: { x: [2, 3, 2, 3] } },
    { shapes: { x: [1, 2, 1, 2] }, attrs: { scale: 3 } },
    {
      shapes: { x: [1, 1, 1, 2] },
      known: { inputs: { x: [1, 2] }, output: [1, 1, 2, 2, 1, 1, 2, 2] },
    },
  ],
});
