import type { Node } from "../ir/node.ts";
import { add } from "./add.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { equal } from "./equal.ts";
import { exp } from "./exp.ts";
import { constant, literal } from "./leaf.ts";
import { log } from "./log.ts";
import { mul } from "./mul.ts";
import { reduceMax } from "./reduce-max.ts";
import { reduceSum } from "./reduce-sum.ts";
import { reshape } from "./reshape.ts";
import { select } from "./select.ts";
import { softmax } from "./softmax.ts";
import { stopGradient } from "./stop-gradient.ts";
import { sub } from "./sub.ts";

/** Σ weights[i] · (log Σ e^logits[i] − logits[i, targets[i]]).  logits: (R, V), targets: (R) ids, weights: (R). */
export const crossEntropy: Op<["logits", "targets", "weights"]> = defineOp("crossEntropy", {
  inputs: ["logits", "targets", "weights"],
  infer({ logits, targets, weights }) {
    const rows = String(logits.shape[0]);
    if (logits.shape.length !== 2 || targets.shape.join() !== rows || weights.shape.join() !== rows)
      throw shapeError("crossEntropy", "logits (R, V) with targets and weights (R)", {
        logits,
        targets,
        weights,
      });
    return { shape: [], dtype: logits.dtype };
  },
  decompose({ logits, targets, weights }) {
    const largest = stopGradient(reduceMax(logits, { axes: [1], keepDims: true }));
    const sum = reduceSum(exp(sub(logits, largest)), { axes: [1] });
    const logSum = add(log(sum), reshape(largest, { shape: targets.shape }));
    const picked = reduceSum(select(isTarget(logits, targets), logits, constant(0)), { axes: [1] });
    return reduceSum(mul(weights, sub(logSum, picked)), { axes: [0] });
  },
  gradient: ({ logits, targets, weights, dy }) => ({
    logits() {
      const oneHot = select(isTarget(logits, targets), constant(1), constant(0));
      const perRow = reshape(mul(weights, dy), { shape: [logits.shape[0]!, 1] });
      return mul(sub(softmax(logits), oneHot), perRow);
    },
  }),
  cases: [
    {
      shapes: { logits: [4, 7], targets: [4], weights: [4] },
      ids: { targets: 7 },
      fixed: ["weights"],
    },
    {
      shapes: { logits: [1, 2], targets: [1], weights: [1] },
      ids: { targets: 2 },
      fixed: ["weights"],
      known: {
        inputs: { logits: [0, Math.log(3)], targets: [0], weights: [2] },
        output: [2 * Math.log(4)],
      },
    },
  ],
});

function isTarget(logits: Node, targets: Node): Node {
  const [R, V] = logits.shape as [number, number];
  const columns = literal({
    dtype: "i64",
    shape: [1, V],
    data: BigInt64Array.from({ length: V }, (_, i) => BigInt(i)),
  });
  return equal(reshape(targets, { shape: [R, 1] }), columns);
}
