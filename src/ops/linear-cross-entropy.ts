import type { Node } from "../ir/node.ts";
import { add } from "./add.ts";
import { concat } from "./concat.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { gatherRows } from "./gather-rows.ts";
import { constant } from "./leaf.ts";
import { log } from "./log.ts";
import { matmul } from "./matmul.ts";
import { mul } from "./mul.ts";
import { reduceMax } from "./reduce-max.ts";
import { reduceSum } from "./reduce-sum.ts";
import { reshape } from "./reshape.ts";
import { slice } from "./slice.ts";
import { softmax } from "./softmax.ts";
import { sub } from "./sub.ts";

/** Products of fewer rows than this are slow. */
const FEWEST_ROWS = 128;
/** How many logits exist at the same time, unless that would be less than `FEWEST_ROWS` rows. */
const defaults: { logitsAtOnce: number } = { logitsAtOnce: 2 ** 24 };
type Attrs = typeof defaults;

type Inputs = Record<"hidden" | "head" | "targets" | "weights", Node>;

/**
 * `crossEntropy` of hidden·headᵀ for a frozen head, in chunks of rows, so that all logits never exist together.
 * hidden: (R, C), head: (V, C), targets: (R) ids, weights: (R).  The log-sum of a row is its largest logit minus
 * the log of its largest probability, which is at least 1/V and cannot underflow.
 */
export const linearCrossEntropy: Op<["hidden", "head", "targets", "weights"], object, Attrs> =
  defineOp("linearCrossEntropy", {
    inputs: ["hidden", "head", "targets", "weights"],
    defaults,
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
          { hidden, head, targets, weights },
        );
      return { shape: [], dtype: hidden.dtype };
    },
    decompose({ head, logitsAtOnce, ...inputs }) {
      return chunksOf({ head, ...inputs }, logitsAtOnce)
        .map((chunk) => {
          const logSum = logSumOf(matmul(chunk.hidden, head, { transB: true }));
          const picked = reduceSum(mul(chunk.hidden, gatherRows(head, chunk.targets)), {
            axes: [1],
          });
          return reduceSum(mul(chunk.weights, sub(logSum, picked)), { axes: [0] });
        })
        .reduce((sum, part) => add(sum, part));
    },
    gradient: ({ hidden, head, targets, weights, logitsAtOnce, dy }) => ({
      hidden: () =>
        mul(linearCrossEntropyGradient(hidden, head, targets, weights, { logitsAtOnce }), dy),
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
        attrs: { logitsAtOnce: 640 },
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
  });

/** d(linearCrossEntropy)/d(hidden), (R, C): weights · (softmax(hidden·headᵀ)·head − head[targets]), by chunks. */
export const linearCrossEntropyGradient: Op<
  ["hidden", "head", "targets", "weights"],
  object,
  Attrs
> = defineOp("linearCrossEntropyGradient", {
  inputs: ["hidden", "head", "targets", "weights"],
  defaults,
  infer: ({ hidden }) => hidden,
  decompose({ head, logitsAtOnce, ...inputs }) {
    const parts = chunksOf({ head, ...inputs }, logitsAtOnce).map((chunk) => {
      const logits = matmul(chunk.hidden, head, { transB: true });
      const difference = sub(matmul(softmax(logits), head), gatherRows(head, chunk.targets));
      // the loss's own use of the logits first, so that they need not outlive this chunk
      const weights = add(chunk.weights, mul(logSumOf(logits), constant(0)));
      return mul(difference, reshape(weights, { shape: [weights.shape[0]!, 1] }));
    });
    return parts.length === 1 ? parts[0]! : concat(parts, { axis: 0 });
  },
  cases: [],
});

function logSumOf(logits: Node): Node {
  const largest = reduceMax(logits, { axes: [1] });
  return sub(largest, log(reduceMax(softmax(logits), { axes: [1] })));
}

function chunksOf({ hidden, head, targets, weights }: Inputs, logitsAtOnce: number): Inputs[] {
  const R = hidden.shape[0]!;
  const fitting = Math.floor(logitsAtOnce / head.shape[0]! / FEWEST_ROWS) * FEWEST_ROWS;
  const rows = Math.max(FEWEST_ROWS, fitting);
  if (R <= rows) return [{ hidden, head, targets, weights }];
  return Array.from({ length: Math.ceil(R / rows) }, (_, i) => {
    const range = { axis: 0, start: i * rows, end: Math.min(R, (i + 1) * rows) };
    return {
      hidden: slice(hidden, range),
      head,
      targets: slice(targets, range),
      weights: slice(weights, range),
    };
  });
}
