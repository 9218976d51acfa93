import type { Node } from "../ir/node.ts";
import { match, of } from "../ir/pattern.ts";
import { rewrite } from "../ir/rewrite.ts";
import { crossEntropy } from "../ops/cross-entropy.ts";
import { isFrozen } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { linearCrossEntropy } from "../ops/linear-cross-entropy.ts";

const loss = of(crossEntropy, of(linear, "hidden", "head"), "targets", "weights");

/**
 * Joins a frozen output head and the cross-entropy of its logits, so that all logits never exist together. A head
 * that trains or is adapted stays apart. For before `gradient`.
 */
export function fuseLoss(roots: readonly Node[]): Node[] {
  return rewrite(roots, (node) => {
    const found = match(loss, node);
    if (!found || !isFrozen(found["head"]!) || node.inputs[0]!.attrs["fanInFanOut"] === true)
      return undefined;
    return linearCrossEntropy(
      found["hidden"]!,
      found["head"]!,
      found["targets"]!,
      found["weights"]!,
    );
  });
}
