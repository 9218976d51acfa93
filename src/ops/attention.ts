import { attend, weightsOf } from "./attention-blocks.ts";
import { attentionGradient } from "./attention-gradient.ts";
import { formatShape, sameShape } from "../tensor/shape.ts";
import { defineOp, type Op, shapeError } from "./define.ts";

/**
 * softmax(scale · q·kᵀ + mask) · v.  q: (B, T, H, D), k: (B, S, Hk, D), v: (B, S, Hk, Dv) → (B, T, H, Dv); each key
 * head serves H/Hk query heads. `causal`: query t sees key s when s ≤ t + S − T; `window` w > 0: and when
 * |t + S − T − s| < w. With segments (B, T) and (B, S): only keys of its own segment. `softcap` c > 0: scores become
 * c · tanh(scores / c).  https://arxiv.org/abs/1706.03762, https://arxiv.org/abs/2305.13245
 */
export const attention: Op<
  ["q", "k", "v", "segmentsQ?", "segmentsK?"],
  object,
  { scale: number; causal: boolean; window: number; softcap: number }
> = defineOp("attention", {
  inputs: ["q", "k", "v", "segmentsQ?", "segmentsK?"],
  defaults: { scale: 1, causal: true as boolean, window: 0, softcap: 0 },
  infer({ q, k, v, segmentsQ, segmentsK }) {
    const [B, T, H, D] = q.shape;
    const [, S, Hk] = k.shape;
    const fits =
      q.shape.length === 4 &&
      k.shape.join() === [B, S, Hk, D].join() &&
      v.shape.slice(0, 3).join() === [B, S, Hk].join();
    if (!fits || H! % Hk! !== 0)
      throw shapeError(
        "attention",
        "q (B, T, H, D), k (B, S, Hk, D), v (B, S, Hk, Dv) with H a multiple of Hk",
        { q, k, v },
      );
    for (const [name, node, shape] of [
      ["segmentsQ", segmentsQ, [B!, T!]],
      ["segmentsK", segmentsK, [B!, S!]],
    ] as const)
      if (segmentsQ && !(node && sameShape(node.shape, shape)))
        throw shapeError("attention", `${name} ${formatShape(shape)}`, { [name]: node ?? [] });
    return { shape: [B!, T!, H!, v.shape[3]!], dtype: q.dtype };
  },
  decompose({ scale, causal, window, softcap, ...inputs }) {
    const blocks = weightsOf(inputs, { scale, causal, window, softcap });
    return attend(inputs.v, blocks, inputs.q.shape[0]!);
  },
  gradient({ scale, causal, window, softcap, dy, q, k, v, segmentsQ, segmentsK }) {
    const attrs = { scale, causal, window, softcap };
    const of = (wrt: string) => () =>
      attentionGradient(q, k, v, dy, segmentsQ, segmentsK, { ...attrs, wrt });
    return { q: of("q"), k: of("k"), v: of("v") };
  },
  cases: [
    { shapes: { q: [2, 3, 4, 8], k: [2, 3, 2, 8], v: [2, 3, 2, 8] }, attrs: { scale: 0.35 } },
    { shapes: { q: [1, 2, 2, 4], k: [1, 5, 2, 4], v: [1, 5, 2, 4] }, attrs: { scale: 0.5 } },
    {
      shapes: { q: [1, 5, 2, 4], k: [1, 5, 1, 4], v: [1, 5, 1, 4] },
      attrs: { causal: true, window: 2 },
    },
    {
      shapes: { q: [1, 4, 2, 4], k: [1, 4, 2, 4], v: [1, 4, 2, 4] },
      attrs: { causal: false, softcap: 2 },
    },
    {
      shapes: {
        q: [2, 6, 2, 4],
        k: [2, 6, 1, 4],
        v: [2, 6, 1, 4],
        segmentsQ: [2, 6],
        segmentsK: [2, 6],
      },
      ids: { segmentsQ: 2, segmentsK: 2 },
      attrs: { causal: false },
    },
    {
      shapes: { q: [1, 300, 2, 4], k: [1, 300, 1, 4], v: [1, 300, 1, 4] },
      attrs: { scale: 0.5, window: 40 },
    },
    {
      shapes: { q: [1, 300, 2, 4], k: [1, 300, 2, 4], v: [1, 300, 2, 4] },
      attrs: { causal: false, window: 40 },
    },
    {
      shapes: { q: [1, 3, 1, 1], k: [1, 3, 1, 1], v: [1, 3, 1, 1] },
      attrs: { causal: false, window: 2 },
      known: { inputs: { q: [0, 0, 0], k: [1, 2, 3], v: [2, 4, 9] }, output: [3, 5, 6.5] },
    },
    {
      shapes: { q: [1, 2, 1, 1], k: [1, 2, 1, 1], v: [1, 2, 1, 1] },
      attrs: { causal: true },
      known: { inputs: { q: [5, Math.log(3)], k: [0, 1], v: [2, 6] }, output: [2, 5] },
    },
  ],
});
