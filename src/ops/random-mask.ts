import type { Shape } from "../tensor/shape.ts";
import { defineOp, type Op } from "./define.ts";
import { randomDrop } from "./random-drop.ts";

/**
 * 0 with probability `p`, else 1/(1−p). Element i is dropped when hash32(hash32(seed, stream), i) < p·2³²: the
 * same mask on every engine, and again when a checkpointed block is recomputed. `seed` is an integer scalar.
 */
export const randomMask: Op<["seed"], { shape: Shape; p: number; stream: number }> = defineOp(
  "randomMask",
  {
    inputs: ["seed"],
    infer: ({ shape }) => ({ shape, dtype: "f32" }),
    evaluate: ({ seed, p, node }) =>
      randomDrop.rules.evaluate!(node, [seed]).map((isDropped) => (isDropped ? 0 : 1 / (1 - p))),
    onnx(emit, { seed, p, node }) {
      const isDropped = randomDrop.rules.onnx!(emit, node, [seed])!;
      return emit.node("Where", [isDropped, emit.scalar(0), emit.scalar(1 / (1 - p))]);
    },
    cases: [
      {
        shapes: { seed: [] },
        ids: { seed: 1000 },
        attrs: { shape: [8, 16], p: 0.25, stream: 3 },
        noGradient: "random, no float input",
      },
      {
        shapes: { seed: [] },
        ids: { seed: 1000 },
        attrs: { shape: [12], p: 0.5, stream: 3 },
        known: { inputs: { seed: [7] }, output: [2, 2, 2, 0, 2, 2, 2, 0, 2, 0, 0, 0] },
        noGradient: "random, no float input",
      },
      {
        shapes: { seed: [] },
        ids: { seed: 1000 },
        attrs: { shape: [3], p: 0, stream: 0 },
        known: { inputs: { seed: [7] }, output: [1, 1, 1] },
        noGradient: "random, no float input",
      },
    ],
  },
);
