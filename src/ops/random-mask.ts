import type { Shape } from "../tensor/shape.ts";
import { defineOp, type Op } from "./define.ts";
import { drawn, randomKeep } from "./random-keep.ts";

/** 0 with probability `p`, else 1/(1−p): where `randomKeep` is true. `seed` is an integer scalar. */
export const randomMask: Op<["seed"], { shape: Shape; p: number; stream: number }> = defineOp(
  "randomMask",
  {
    inputs: ["seed"],
    infer: ({ shape }) => ({ shape, dtype: "f32" }),
    evaluate: ({ seed, p, node }) =>
      randomKeep.rules.evaluate!(node, [seed]).map((isKept) => isKept / (1 - p)),
    onnx(emit, { seed, p, node }) {
      const kept = emit.node("Cast", [randomKeep.rules.onnx!(emit, node, [seed])!], { to: 1 });
      return emit.node("Mul", [kept, emit.scalar(1 / (1 - p))]);
    },
    cases: [
      {
        ...drawn,
        attrs: { shape: [8, 16], p: 0.25, stream: 3 },
      },
      {
        ...drawn,
        attrs: { shape: [12], p: 0.5, stream: 3 },
        known: { inputs: { seed: [7] }, output: [0, 2, 0, 0, 2, 0, 2, 0, 0, 2, 0, 2] },
      },
      {
        ...drawn,
        attrs: { shape: [3], p: 0, stream: 0 },
        known: { inputs: { seed: [7] }, output: [1, 1, 1] },
      },
    ],
  },
);
