import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { concat } from "../ops/concat.ts";
import { reshape } from "../ops/reshape.ts";
import { silu } from "../ops/silu.ts";
import { channelNorm, convolve, resnet, upsample } from "./image-layers.ts";
import { spatialTransformer } from "./spatial-transformer.ts";
import { waveMlp, waves } from "./time-embedding.ts";
import { type UnetConfig, unetConfig, type UnetLevel } from "./unet2d-config.ts";
import type { HfConfig } from "./config.ts";

/** What a UNet reads, as nodes: inputs of a graph, or results of other models. */
export interface UnetInputs {
  /** Noisy latents, (B, C, H, W). */
  readonly sample: Node;
  /** (B). */
  readonly timestep: Node;
  /** Hidden states of the text encoder(s), (B, T, Ct). */
  readonly text: Node;
  /** SDXL: the pooled text of the second encoder, (B, P). */
  readonly pooledText?: Node;
  /** SDXL: original size, crop and target size, (B, 6). */
  readonly timeIds?: Node;
}

/**
 * The noise (or velocity) that a Stable Diffusion UNet (1, 2, XL) sees in `sample`, of the same shape.
 * https://arxiv.org/abs/2112.10752, https://arxiv.org/abs/2307.01952
 * @throws LorikeetError `model-config` for variants that are not built
 */
export function unet2dCondition(config: HfConfig, inputs: UnetInputs): Node {
  const unet = unetConfig(config);
  const [B, T, features] = inputs.text.shape as [number, number, number];
  const context: Context = {
    unet,
    norm: { groups: unet.groups, eps: unet.eps },
    time: silu(timeEmbedding(unet, inputs)),
    text: reshape(inputs.text, { shape: [B * T, features] }),
  };
  const first = convolve(inputs.sample, "conv_in", unet.levels[0]!.channels);
  const skips = [first];
  let x = wayDown(context, first, skips);
  x = middle(context, x);
  x = wayUp(context, x, skips);
  return convolve(
    silu(channelNorm(x, "conv_norm_out", context.norm)),
    "conv_out",
    unet.outChannels,
  );
}

interface Context {
  readonly unet: UnetConfig;
  readonly norm: { readonly groups: number; readonly eps: number };
  /** Activated time embedding, (B, D). */
  readonly time: Node;
  /** (B·T, Ct). */
  readonly text: Node;
}

function timeEmbedding(unet: UnetConfig, { timestep, pooledText, timeIds }: UnetInputs): Node {
  const { flipSinToCos, freqShift, added } = unet;
  const base = unet.levels[0]!.channels;
  const wave = { flipSinToCos, freqShift };
  const time = waveMlp(waves(timestep, { ...wave, features: base }), "time_embedding", 4 * base);
  if (!added) return time;
  const [B, count] = timeIds!.shape as [number, number];
  const sizes = waves(timeIds!, { ...wave, features: added.waveFeatures });
  const flat = reshape(sizes, { shape: [B, count * added.waveFeatures] });
  const both = concat([pooledText!, flat], { axis: 1 });
  return add(time, waveMlp(both, "add_embedding", 4 * base));
}

/** A residual block, and attention to the text behind it. */
function layer(
  { unet, norm, time, text }: Context,
  x: Node,
  name: string,
  place: { index: number; channels: number; attends: boolean; level: UnetLevel },
): Node {
  const { index, channels, attends, level } = place;
  const y = boundary(resnet(x, `${name}.resnets.${index}`, channels, { norm, time }));
  return attends ? attend(unet, y, `${name}.attentions.${index}`, { text, level }) : y;
}

function attend(
  { linearProjection, groups }: UnetConfig,
  x: Node,
  name: string,
  { text, level }: { text: Node; level: UnetLevel },
): Node {
  const { heads, transformerLayers: layers } = level;
  return boundary(spatialTransformer(x, name, text, { heads, layers, linearProjection, groups }));
}

/** Down to the coarsest resolution; what the way up reads again is added to `skips`. */
function wayDown(context: Context, first: Node, skips: Node[]): Node {
  const { levels, layersPerBlock } = context.unet;
  let x = first;
  for (const [i, level] of levels.entries()) {
    const name = `down_blocks.${i}`;
    const { channels, attendsDown: attends } = level;
    for (let index = 0; index < layersPerBlock; index++) {
      x = layer(context, x, name, { index, channels, attends, level });
      skips.push(x);
    }
    if (i === levels.length - 1) continue;
    x = convolve(x, `${name}.downsamplers.0.conv`, channels, { stride: 2 });
    skips.push(x);
  }
  return x;
}

function middle({ unet, norm, time, text }: Context, x: Node): Node {
  const level = unet.levels.at(-1)!;
  const block = (y: Node, index: number): Node =>
    boundary(resnet(y, `mid_block.resnets.${index}`, level.channels, { norm, time }));
  return block(attend(unet, block(x, 0), "mid_block.attentions.0", { text, level }), 1);
}

function wayUp(context: Context, bottom: Node, skips: Node[]): Node {
  const { levels, layersPerBlock } = context.unet;
  let x = bottom;
  for (const [i, level] of [...levels].reverse().entries()) {
    const name = `up_blocks.${i}`;
    const { channels, attendsUp: attends } = level;
    for (let index = 0; index <= layersPerBlock; index++) {
      const both = concat([x, skips.pop()!], { axis: 1 });
      x = layer(context, both, name, { index, channels, attends, level });
    }
    if (i < levels.length - 1)
      x = boundary(upsample(x, `${name}.upsamplers.0`, skips.at(-1)!.shape.slice(2)));
  }
  return x;
}
