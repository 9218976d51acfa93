import type { Node } from "../ir/node.ts";
import { add } from "./add.ts";
import {
  type AttentionAttrs,
  type Block,
  blocksOf,
  blockWeights,
  groupHeads,
  keysOf,
  rowsOf,
  ungroupHeads,
} from "./attention-blocks.ts";
import { concat } from "./concat.ts";
import { defineOp, type Op } from "./define.ts";
import { constant } from "./leaf.ts";
import { matmul } from "./matmul.ts";
import { mul } from "./mul.ts";
import { pad } from "./pad.ts";
import { reduceSum } from "./reduce-sum.ts";
import { reshape } from "./reshape.ts";
import { sub } from "./sub.ts";

/**
 * d(loss)/d(q, k or v) of `attention` (attribute `wrt`) from dy (B, T, H, Dv). With P the weights: dV = Pᵀ·dY,
 * dS = P ∘ (dY·Vᵀ − rowsum(dY·Vᵀ ∘ P)), dQ = scale · dS·K, dK = scale · dSᵀ·Q.  The three share all but their last
 * product, which `cse` finds.
 */
export const attentionGradient: Op<
  ["q", "k", "v", "dy", "segmentsQ?", "segmentsK?"],
  { wrt: string; scale: number; causal: boolean; window: number; softcap: number }
> = defineOp("attentionGradient", {
  inputs: ["q", "k", "v", "dy", "segmentsQ?", "segmentsK?"],
  infer({ q, k, v, wrt }) {
    return wrt === "q" ? q : wrt === "k" ? k : v;
  },
  decompose({ scale, causal, window, softcap, wrt, ...inputs }) {
    const attrs: AttentionAttrs = { scale, causal, window, softcap };
    const { q, k, v, dy } = inputs;
    const [B, T, H, D] = q.shape as [number, number, number, number];
    const [, S, Hk] = k.shape as [number, number, number];
    const [queries, keys, values, dOut] = [q, k, v, dy].map((x) => groupHeads(x, Hk)) as [
      Node,
      Node,
      Node,
      Node,
    ];
    const parts = blocksOf(T, S, attrs).map((block) => {
      const { weights, capped } = blockWeights(inputs, block, attrs);
      const dRows = rowsOf(dOut, block);
      if (wrt === "v") return { block, part: matmul(weights, dRows, { transA: true }) };
      const dWeights = matmul(dRows, keysOf(values, block), { transB: true });
      // rowsum(dP ∘ P) = rowsum(dY ∘ P·V), which is narrower; the forward pass has P·V
      const attended = matmul(weights, keysOf(values, block));
      const along = reduceSum(mul(dRows, attended), { axes: [2], keepDims: true });
      const plain = mul(weights, sub(dWeights, along));
      const dScores = capped ? mul(plain, sub(constant(1), mul(capped, capped))) : plain;
      const product =
        wrt === "q"
          ? matmul(dScores, keysOf(keys, block))
          : matmul(dScores, rowsOf(queries, block), { transA: true });
      return { block, part: mul(product, constant(scale)) };
    });
    if (wrt !== "q") return ungroupHeads(sumOverKeys(parts, S), B);
    const rows = parts.map(({ block, part }) =>
      reshape(part, { shape: [B * Hk, H / Hk, block.end - block.start, D] }),
    );
    return ungroupHeads(rows.length === 1 ? rows[0]! : concat(rows, { axis: 2 }), B);
  },
  cases: [],
});

/** Adds what each block gives to the keys that it sees: (B·Hk, keys, D) parts → (B·Hk, 1, S, D). */
function sumOverKeys(parts: readonly { block: Block; part: Node }[], S: number): Node {
  const whole = parts
    .map(({ block, part }) =>
      part.shape[1] === S
        ? part
        : pad(part, { axis: 1, before: block.keyStart, after: S - block.keyEnd }),
    )
    .reduce((sum, part) => add(sum, part));
  const [BH, , D] = whole.shape as [number, number, number];
  return reshape(whole, { shape: [BH, 1, S, D] });
}
