import type { Node } from "../ir/node.ts";
import { add } from "./add.ts";
import { concat } from "./concat.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { gatherRows } from "./gather-rows.ts";
import { log } from "./log.ts";
import { matmul } from "./matmul.ts";
import { mul } from "./mul.ts";
import { reduceMax } from "./reduce-max.ts";
import { reduceSum } from "./reduce-sum.ts";
import { reshape } from "./reshape.ts";
import { slice } from "./slice.ts";
import { softmax } from "./softmax.ts";
import { sub } from "./sub.ts";

/** Rows whose logits exist at the same time. */
const CHUNK = 128;

type Inputs = Record<"hidden" | "head" | "targets" | "weights", Node>;

/**
 * `crossEntropy` of hidden·headᵀ for a frozen head, in chunks of rows, so that all logits never exist together.
 * hidden: (R, C), head: (V, C), targets: (R) ids, weights: (R).  The log-sum of a row is its largest logit minus
 * the log of its largest probability, which is at least 1/V and cannot underflow.
 */
export const linearCrossEntropy: Op<["hidden", "head", "targets", "weights"]> = defineOp(
  "linearCrossEntropy",
  {
    inputs: ["hidden", "head", "targets", "weights"],
    infer({ hidden, head, targets, weights }) {
      const rows = String(hidden.shape[0]);
      if (
        hidden.shape[1] !== head.shape[1] ||
        targets.shape.join() !== rows ||
        weights.shape.join() !== rows
      )
        throw shapeError(
          "linearCrossEntropy",
          "hidden (R, C), head (V, C), targets and weights (R)",
          {
            hidden: hidden.shape,
            head: head.shape,
            targets: targets.shape,
            weights: weights.shape,
          },
        );
      return { shape: [], dtype: hidden.dtype };
    },
    decompose({ hidden, head, targets, weights }) {
      return chunksOf({ hidden, head, targets, weights })
        .map((chunk) => {
          const logits = matmul(chunk.hidden, head, { transB: true });
          const logSum = sub(
            reduceMax(logits, { axes: [1] }),
            log(reduceMax(softmax(logits), { axes: [1] })),
          );
          const picked = reduceSum(mul(chunk.hidden, gatherRows(head, chunk.targets)), {
            axes: [1],
          });
          return reduceSum(mul(chunk.weights, sub(logSum, picked)), { axes: [0] });
        })
        .reduce((sum, part) => add(sum, part));
    },
    gradient: ({ hidden, head, targets, weights, dy }) => ({
      hidden: () => mul(linearCrossEntropyGradient(hidden, head, targets, weights), dy),
    }),
    cases: [
      {
        shapes: { hidden: [4, 3], head: [7, 3], targets: [4], weights: [4] },
        ids: { targets: 7 },
        fixed: ["weights", "head"],
      },
      {
        shapes: { hidden: [130, 2], head: [5, 2], targets: [130], weights: [130] },
        ids: { targets: 5 },
        fixed: ["weights", "head"],
      },
      {
        shapes: { hidden: [1, 1], head: [2, 1], targets: [1], weights: [1] },
        ids: { targets: 2 },
        fixed: ["weights", "head"],
        known: {
          inputs: { hidden: [1], head: [0, Math.log(3)], targets: [0], weights: [2] },
          output: [2 * Math.log(4)],
        },
      },
    ],
  },
);

/** d(linearCrossEntropy)/d(hidden), (R, C): weights · (softmax(hidden·headᵀ)·head − head[targets]), by chunks. */
export const linearCrossEntropyGradient: Op<["hidden", "head", "targets", "weights"]> = defineOp(
  "linearCrossEntropyGradient",
  {
    inputs: ["hidden", "head", "targets", "weights"],
    infer: ({ hidden }) => hidden,
    decompose({ hidden, head, targets, weights }) {
      const parts = chunksOf({ hidden, head, targets, weights }).map((chunk) => {
        const p = softmax(matmul(chunk.hidden, head, { transB: true }));
        const difference = sub(matmul(p, head), gatherRows(head, chunk.targets));
        return mul(difference, reshape(chunk.weights, { shape: [chunk.weights.shape[0]!, 1] }));
      });
      return parts.length === 1 ? parts[0]! : concat(parts, { axis: 0 });
    },
    cases: [],
  },
);

function chunksOf({ hidden, head, targets, weights }: Inputs): Inputs[] {
  const R = hidden.shape[0]!;
  if (R <= CHUNK) return [{ hidden, head, targets, weights }];
  return Array.from({ length: Math.ceil(R / CHUNK) }, (_, i) => {
    const range = { axis: 0, start: i * CHUNK, end: Math.min(R, (i + 1) * CHUNK) };
    return {
      hidden: slice(hidden, range),
      head,
      targets: slice(targets, range),
      weights: slice(weights, range),
    };
  });
}
