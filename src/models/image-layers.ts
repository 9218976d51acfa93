/** @file Pieces of image models. Images are (B, C, H, W), tokens (B·H·W, C); weights keep the checkpoint's names. */
import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { attention } from "../ops/attention.ts";
import { conv2d } from "../ops/conv2d.ts";
import { groupNorm } from "../ops/group-norm.ts";
import { parameter } from "../ops/leaf.ts";
import { reshape } from "../ops/reshape.ts";
import { silu } from "../ops/silu.ts";
import { slice } from "../ops/slice.ts";
import { transpose } from "../ops/transpose.ts";
import { upsampleNearest } from "../ops/upsample-nearest.ts";
import { dense } from "./layers.ts";

/** Options of `convolve`. */
export interface ConvolveOptions {
  /** Side of the square kernel; 3 by default. */
  readonly kernel?: number;
  readonly stride?: number;
  /** Zeros around the image; by default as many as keep its size. */
  readonly padding?: number;
}

/** A convolution with bias: the weights `name.weight` (channels, x's channels, k, k) and `name.bias`. */
export function convolve(
  x: Node,
  name: string,
  channels: number,
  { kernel = 3, stride = 1, padding = (kernel - 1) / 2 }: ConvolveOptions = {},
): Node {
  const weight = parameter(`${name}.weight`, [channels, x.shape[1]!, kernel, kernel]);
  const y = conv2d(x, weight, { stride: [stride, stride], padding: [padding, padding] });
  const bias = reshape(parameter(`${name}.bias`, [channels]), { shape: [channels, 1, 1] });
  return add(y, bias);
}

/** How a model normalizes groups of channels. */
export interface GroupNormConfig {
  readonly groups: number;
  readonly eps: number;
}

/** Group norm with `name.weight` and `name.bias`. */
export function channelNorm(x: Node, name: string, { groups, eps }: GroupNormConfig): Node {
  const shape = [x.shape[1]!];
  const [weight, bias] = [parameter(`${name}.weight`, shape), parameter(`${name}.bias`, shape)];
  return groupNorm(x, weight, bias, { groups, eps });
}

/**
 * x + conv2(silu(norm2(conv1(silu(norm1(x))) + projected time))), x through a 1×1 convolution where `channels` are
 * others than its own. `time`: the activated time embedding (B, D), for models that have one.
 * https://arxiv.org/abs/1512.03385, https://arxiv.org/abs/2006.11239
 */
export function resnet(
  x: Node,
  name: string,
  channels: number,
  { norm, time }: { norm: GroupNormConfig; time?: Node | undefined },
): Node {
  const first = convolve(silu(channelNorm(x, `${name}.norm1`, norm)), `${name}.conv1`, channels);
  const timed = time ? add(first, timeShift(time, `${name}.time_emb_proj`, channels)) : first;
  const last = silu(channelNorm(timed, `${name}.norm2`, norm));
  const isSame = x.shape[1] === channels;
  const skip = isSame ? x : convolve(x, `${name}.conv_shortcut`, channels, { kernel: 1 });
  return add(skip, convolve(last, `${name}.conv2`, channels));
}

function timeShift(time: Node, name: string, channels: number): Node {
  const shift = dense(time, name, channels, { bias: true });
  return reshape(shift, { shape: [...shift.shape, 1, 1] });
}

/** Doubles the size and convolves. `size` [H, W]: cuts to it, where the way down rounded an odd size up. */
export function upsample(x: Node, name: string, size?: readonly number[]): Node {
  let y = upsampleNearest(x, { scale: 2 });
  for (const [i, end] of (size ?? []).entries())
    if (y.shape[2 + i]! > end) y = slice(y, { axis: 2 + i, start: 0, end });
  return convolve(y, `${name}.conv`, x.shape[1]!);
}

/** The pixels of x (B, C, H, W) as tokens (B·H·W, C). */
export function toTokens(x: Node): Node {
  const [B, C, H, W] = x.shape as [number, number, number, number];
  const pixels = transpose(reshape(x, { shape: [B, C, H * W] }), { perm: [0, 2, 1] });
  return reshape(pixels, { shape: [B * H * W, C] });
}

/** The inverse of `toTokens`: tokens (B·H·W, C) as an image of the batch and size of `like`. */
export function toImage(tokens: Node, like: Node): Node {
  const [B, , H, W] = like.shape as [number, number, number, number];
  const C = tokens.shape[1]!;
  const pixels = reshape(tokens, { shape: [B, H * W, C] });
  return reshape(transpose(pixels, { perm: [0, 2, 1] }), { shape: [B, C, H, W] });
}

/** Options of `tokenAttention`. */
export interface TokenAttentionOptions {
  readonly batch: number;
  readonly heads: number;
  /** Biases of q, k and v. */
  readonly bias?: boolean;
}

/** Attention of tokens x (B·T, C) to `context` (B·S, Cc), every one to every one: `name.to_q` … `name.to_out.0`. */
export function tokenAttention(
  x: Node,
  name: string,
  context: Node,
  { batch, heads, bias = false }: TokenAttentionOptions,
): Node {
  const C = x.shape[1]!;
  const project = (from: Node, part: string): Node => {
    const y = dense(from, `${name}.${part}`, C, { bias });
    return reshape(y, { shape: [batch, from.shape[0]! / batch, heads, C / heads] });
  };
  const [q, k, v] = [project(x, "to_q"), project(context, "to_k"), project(context, "to_v")];
  const y = attention(q, k, v, undefined, undefined, {
    scale: 1 / Math.sqrt(C / heads),
    causal: false,
  });
  return dense(reshape(y, { shape: x.shape }), `${name}.to_out.0`, C, { bias: true });
}
