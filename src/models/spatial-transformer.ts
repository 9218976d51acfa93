import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { geglu } from "../ops/geglu.ts";
import {
  channelNorm,
  convolve,
  type GroupNormConfig,
  toImage,
  tokenAttention,
  toTokens,
} from "./image-layers.ts";
import { dense, meanNorm, splitColumns } from "./layers.ts";

/** Options of `spatialTransformer`. */
export interface SpatialTransformerConfig {
  readonly heads: number;
  readonly layers: number;
  /** Linear layers around the blocks (SD 2, SDXL) instead of 1×1 convolutions (SD 1). */
  readonly linearProjection: boolean;
  readonly groups: number;
}

const EPS = 1e-5;

/**
 * x + what transformer blocks over the pixels of x (B, C, H, W) make of it: self-attention, attention to the text
 * (B·T, Ct), feed-forward. https://arxiv.org/abs/2112.10752 §3.3
 */
export function spatialTransformer(
  x: Node,
  name: string,
  text: Node,
  { heads, layers, linearProjection, groups }: SpatialTransformerConfig,
): Node {
  const [batch, C] = x.shape as [number, number];
  const norm: GroupNormConfig = { groups, eps: 1e-6 };
  const normed = channelNorm(x, `${name}.norm`, norm);
  let tokens = linearProjection
    ? dense(toTokens(normed), `${name}.proj_in`, C, { bias: true })
    : toTokens(convolve(normed, `${name}.proj_in`, C, { kernel: 1 }));
  for (let i = 0; i < layers; i++)
    tokens = boundary(block(tokens, `${name}.transformer_blocks.${i}`, text, { batch, heads }));
  const projected = linearProjection
    ? toImage(dense(tokens, `${name}.proj_out`, C, { bias: true }), x)
    : convolve(toImage(tokens, x), `${name}.proj_out`, C, { kernel: 1 });
  return add(x, projected);
}

function block(x: Node, name: string, text: Node, options: { batch: number; heads: number }): Node {
  const normed = meanNorm(x, `${name}.norm1`, EPS);
  const own = add(x, tokenAttention(normed, `${name}.attn1`, normed, options));
  const read = tokenAttention(meanNorm(own, `${name}.norm2`, EPS), `${name}.attn2`, text, options);
  const crossed = add(own, read);
  const C = x.shape[1]!;
  const both = dense(meanNorm(crossed, `${name}.norm3`, EPS), `${name}.ff.net.0.proj`, 8 * C, {
    bias: true,
  });
  const [value, gate] = splitColumns(both, [4 * C, 4 * C]) as [Node, Node];
  return add(crossed, dense(geglu(value, gate), `${name}.ff.net.2`, C, { bias: true }));
}
