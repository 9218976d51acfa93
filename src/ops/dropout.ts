import { defineOp, type Op } from "./define.ts";
import { mul } from "./mul.ts";
import { randomMask } from "./random-mask.ts";

/** x with elements dropped with probability `p` and the rest scaled by 1/(1−p). https://jmlr.org/papers/v15/srivastava14a.html */
export const dropout: Op<["x", "seed"], { p: number; stream: number }> = defineOp("dropout", {
  inputs: ["x", "seed"],
  infer: ({ x }) => x,
  decompose: ({ x, seed, p, stream }) => mul(x, randomMask(seed, { shape: x.shape, p, stream })),
  cases: [
    { shapes: { x: [4, 8], seed: [] }, ids: { seed: 1000 }, attrs: { p: 0.5, stream: 1 } },
    {
      shapes: { x: [4], seed: [] },
      ids: { seed: 1000 },
      attrs: { p: 0.5, stream: 3 },
      known: { inputs: { x: [1, 2, 3, 4], seed: [7] }, output: [0, 4, 0, 0] },
    },
  ],
});
