import { tensor } from "../tensor/tensor.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { inverseRms } from "./inverse-rms.ts";
import { mean } from "./mean.ts";
import { mul } from "./mul.ts";
import { reshape } from "./reshape.ts";
import { sub } from "./sub.ts";

const over = { axes: [2], keepDims: true };

/**
 * (x − mean) / √(variance + eps) over each of `groups` parts of the channels and all pixels.  x: (B, C, H, W).
 * What `groupNorm` scales and shifts; its own op, as the backward pass reads the same values.
 */
export const standardize: Op<["x"], { groups: number }, { eps: number }> = defineOp("standardize", {
  inputs: ["x"],
  defaults: { eps: 1e-5 },
  infer({ x, groups }) {
    if (x.shape.length !== 4 || x.shape[1]! % groups !== 0)
      throw shapeError("standardize", `(B, C, H, W) with C a multiple of ${groups}`, { x });
    return x;
  },
  decompose({ x, groups, eps }) {
    const rows = reshape(x, { shape: rowsOf(x.shape, groups) });
    const centred = sub(rows, mean(rows, over));
    return reshape(mul(centred, inverseRms(centred, { eps })), { shape: x.shape });
  },
  gradient: ({ x, groups, eps, node, dy }) => ({
    x() {
      const shape = rowsOf(x.shape, groups);
      const [rows, y, g] = [x, node, dy].map((value) => reshape(value, { shape })) as [
        typeof x,
        typeof x,
        typeof x,
      ];
      const r = inverseRms(sub(rows, mean(rows, over)), { eps });
      const along = mul(y, mean(mul(g, y), over));
      return reshape(mul(r, sub(sub(g, mean(g, over)), along)), { shape: x.shape }); // r · (g − mean(g) − y · mean(g · y))
    },
  }),
  onnx(emit, { x, groups, eps, node }) {
    // on WebGPU every session of a process gets the eps of the first one, without a sign of it
    if (emit.profile !== "cpu") return undefined;
    const filled = (value: number): string =>
      emit.constant(tensor("f32", [groups], new Float32Array(groups).fill(value)));
    const rows = emit.node("Reshape", [x, emit.ints(rowsOf(node.shape, groups))]);
    const y = emit.node("InstanceNormalization", [rows, filled(1), filled(0)], { epsilon: eps });
    return emit.node("Reshape", [y, emit.ints(node.shape)]);
  },
  cases: [
    { shapes: { x: [2, 4, 2, 3] }, attrs: { groups: 2 } },
    { shapes: { x: [1, 3, 2, 2] }, attrs: { groups: 3, eps: 0.1 } },
    {
      shapes: { x: [1, 2, 1, 1] },
      attrs: { groups: 1, eps: 0.75 },
      known: { inputs: { x: [1, 2] }, output: [-0.5, 0.5] },
    },
  ],
});

function rowsOf([B, C, H, W]: readonly number[], groups: number): number[] {
  return [B!, groups, (C! / groups) * H! * W!];
}
