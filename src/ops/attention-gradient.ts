import type { Node } from "../ir/node.ts";
import { add } from "./add.ts";
import {
  type AttentionAttrs,
  type Block,
  attend,
  groupHeads,
  keysOf,
  rowsOf,
  ungroupHeads,
  weightsOf,
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
    const [B, , H, D] = q.shape as [number, number, number, number];
    const [, S, Hk] = k.shape as [number, number, number];
    const [queries, keys, values, dOut] = [q, k, v, dy].map((x) => groupHeads(x, Hk)) as [
      Node,
      Node,
      Node,
      Node,
    ];
    const blocks = weightsOf(inputs, attrs);
    // rowsum(dP ∘ P) = rowsum(dY ∘ P·V), which is narrower; P·V is what the forward pass gave
    const along = (): Node =>
      reduceSum(mul(dy, attend(v, blocks, B)), { axes: [3], keepDims: true });
    const sums = wrt === "v" ? undefined : groupHeads(along(), Hk);
    const parts = blocks.map(({ block, weights, capped }) => {
      const dRows = rowsOf(dOut, block);
      if (!sums) return { block, part: matmul(weights, dRows, { transA: true }) };
      const dWeights = matmul(dRows, keysOf(values, block), { transB: true });
      const plain = mul(weights, sub(dWeights, rowsOf(sums, block)));
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
  // widened no more than the next block needs, as all that is padded is copied
  const { part: whole } = widened(
    parts.reduce((sum, next) => {
      const keyStart = Math.min(sum.block.keyStart, next.block.keyStart);
      const keyEnd = Math.max(sum.block.keyEnd, next.block.keyEnd);
      const block = { ...next.block, keyStart, keyEnd };
      return { block, part: add(widened(sum, block).part, widened(next, block).part) };
    }),
    { keyStart: 0, keyEnd: S },
  );
  const [BH, , D] = whole.shape as [number, number, number];
  return reshape(whole, { shape: [BH, 1, S, D] });
}

/** `part` with zeros for the keys of `to` that its block does not see. */
function widened(
  { block, part }: { block: Block; part: Node },
  to: Pick<Block, "keyStart" | "keyEnd">,
): { block: Block; part: Node } {
  const before = block.keyStart - to.keyStart;
  const after = to.keyEnd - block.keyEnd;
  const wide = before === 0 && after === 0 ? part : pad(part, { axis: 1, before, after });
  return { block: { ...block, ...to }, part: wide };
}
