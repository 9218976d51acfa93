import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { div } from "../ops/div.ts";
import { constant } from "../ops/leaf.ts";
import { matmul } from "../ops/matmul.ts";
import { mul } from "../ops/mul.ts";
import { reduceSum } from "../ops/reduce-sum.ts";
import { sqrt } from "../ops/sqrt.ts";
import { stopGradient } from "../ops/stop-gradient.ts";
import { sub } from "../ops/sub.ts";

/** The nodes of one adapted layer that DoRA puts together. */
export interface DoraLayer {
  /** y, the layer without its bias. */
  readonly node: Node;
  /** The same product on the adapter's (possibly dropped) input. */
  readonly base: Node;
  /** scale · B·A·x. */
  readonly delta: Node;
  /** m and the norm of the adapted weight, for each output feature; they broadcast to y. */
  readonly magnitude: Node;
  readonly norm: Node;
}

/**
 * Weight-decomposed adaptation: m / ‖W + scale·B·A‖ · (W + scale·B·A)·x, norms per output feature and constant in
 * the backward pass. https://arxiv.org/abs/2402.09353 §4.3
 */
export function doraLayer({ node, base, delta, magnitude, norm }: DoraLayer): Node {
  const factor = div(magnitude, stopGradient(norm));
  if (base === node) return mul(add(node, delta), factor);
  return add(node, add(mul(base, sub(factor, constant(1))), mul(delta, factor)));
}

/** The matrices of an adapted weight: W (out, in), or (in, out) with `fanInFanOut`; A (r, in), B (out, r). */
export interface AdaptedWeight {
  readonly weight: Node;
  readonly fanInFanOut: boolean;
  readonly a: Node;
  readonly b: Node;
  readonly scale: number;
}

/**
 * ‖W + s·B·A‖ for each output feature, (out), without forming B·A: the square is
 * ‖W‖² + 2s · rowsum(B ∘ (W·Aᵀ)) + s² · rowsum(B ∘ (B·(A·Aᵀ))).
 */
export function adaptedNorm({ weight, fanInFanOut, a, b, scale }: AdaptedWeight): Node {
  const own = reduceSum(mul(weight, weight), { axes: [fanInFanOut ? 0 : 1] });
  const cross = reduceSum(mul(b, matmul(weight, a, { transA: fanInFanOut, transB: true })), {
    axes: [1],
  });
  const gram = matmul(a, a, { transB: true });
  const adapter = reduceSum(mul(b, matmul(b, gram)), { axes: [1] });
  return sqrt(
    add(own, add(mul(cross, constant(2 * scale)), mul(adapter, constant(scale * scale)))),
  );
}
