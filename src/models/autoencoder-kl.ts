import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { pad } from "../ops/pad.ts";
import { silu } from "../ops/silu.ts";
import { configError, flagField, type HfConfig, numberField, oneOf } from "./config.ts";
import {
  channelNorm,
  convolve,
  type GroupNormConfig,
  resnet,
  toImage,
  tokenAttention,
  toTokens,
  upsample,
} from "./image-layers.ts";

/**
 * The encoder of AutoencoderKL: pixels (B, 3, H, W) in [−1, 1] to moments (B, 2·L, H/f, W/f): the mean of the
 * latents, then the logarithm of their variance. https://arxiv.org/abs/2112.10752 §3.1
 */
export function encodeImage(config: HfConfig, pixels: Node): Node {
  const vae = vaeConfig(config, "down_block_types", "DownEncoderBlock2D");
  let x = convolve(pixels, "encoder.conv_in", vae.channels[0]!);
  for (const [i, channels] of vae.channels.entries()) {
    const name = `encoder.down_blocks.${i}`;
    for (let j = 0; j < vae.layers; j++) x = resnet(x, `${name}.resnets.${j}`, channels, vae);
    if (i === vae.channels.length - 1) continue;
    const padded = pad(pad(x, { axis: 2, before: 0, after: 1 }), { axis: 3, before: 0, after: 1 });
    x = convolve(padded, `${name}.downsamplers.0.conv`, channels, { stride: 2, padding: 0 });
  }
  x = middle(vae, x, "encoder.mid_block");
  const last = silu(channelNorm(x, "encoder.conv_norm_out", vae.norm));
  const moments = convolve(last, "encoder.conv_out", 2 * vae.latents);
  const isMixed = flagField(config, "use_quant_conv", true);
  return isMixed ? convolve(moments, "quant_conv", 2 * vae.latents, { kernel: 1 }) : moments;
}

/** The decoder of AutoencoderKL: latents (B, L, h, w), not scaled, to pixels (B, 3, f·h, f·w) around [−1, 1]. */
export function decodeLatents(config: HfConfig, latents: Node): Node {
  const vae = vaeConfig(config, "up_block_types", "UpDecoderBlock2D");
  const isMixed = flagField(config, "use_post_quant_conv", true);
  const mixed = isMixed
    ? convolve(latents, "post_quant_conv", vae.latents, { kernel: 1 })
    : latents;
  let x = convolve(mixed, "decoder.conv_in", vae.channels.at(-1)!);
  x = middle(vae, x, "decoder.mid_block");
  for (const [i, channels] of [...vae.channels].reverse().entries()) {
    const name = `decoder.up_blocks.${i}`;
    for (let j = 0; j <= vae.layers; j++) x = resnet(x, `${name}.resnets.${j}`, channels, vae);
    if (i < vae.channels.length - 1) x = upsample(x, `${name}.upsamplers.0`);
  }
  const last = silu(channelNorm(x, "decoder.conv_norm_out", vae.norm));
  return convolve(last, "decoder.conv_out", numberField(config, "out_channels", 3));
}

/** Pixels of an image along one side of a latent. */
export function vaeFactor(config: HfConfig): number {
  return 2 ** ((config["block_out_channels"] as readonly number[]).length - 1);
}

/** The name that the autoencoder has for the weight that a checkpoint calls `stored`: attention once had other names. */
export function vaeWeightName(stored: string): string {
  const old: Readonly<Record<string, string>> = {
    query: "to_q",
    key: "to_k",
    value: "to_v",
    proj_attn: "to_out.0",
  };
  return stored.replace(
    /(attentions\.0\.)(query|key|value|proj_attn)\./,
    (_, place: string, part: string) => `${place}${old[part]!}.`,
  );
}

interface VaeConfig {
  /** From full resolution to the latents'. */
  readonly channels: readonly number[];
  readonly layers: number;
  readonly latents: number;
  readonly norm: GroupNormConfig;
  readonly attends: boolean;
}

function vaeConfig(config: HfConfig, typesField: string, type: string): VaeConfig {
  oneOf(config, "act_fn", ["silu", "swish"], "silu");
  const channels = config["block_out_channels"] as readonly number[] | undefined;
  const types = config[typesField];
  if (!Array.isArray(channels) || !Array.isArray(types) || !types.every((name) => name === type))
    throw configError(
      `Expected block_out_channels and ${typesField} of ${type} in the autoencoder's config.json, got ${JSON.stringify(channels)} and ${JSON.stringify(types)}`,
    );
  return {
    channels: channels as readonly number[],
    layers: numberField(config, "layers_per_block", 1),
    latents: numberField(config, "latent_channels", 4),
    norm: { groups: numberField(config, "norm_num_groups", 32), eps: 1e-6 },
    attends: flagField(config, "mid_block_add_attention", true),
  };
}

function middle(vae: VaeConfig, x: Node, name: string): Node {
  const channels = vae.channels.at(-1)!;
  const first = resnet(x, `${name}.resnets.0`, channels, vae);
  const attended = vae.attends ? attend(first, `${name}.attentions.0`, vae.norm) : first;
  return resnet(attended, `${name}.resnets.1`, channels, vae);
}

function attend(x: Node, name: string, norm: GroupNormConfig): Node {
  const tokens = toTokens(channelNorm(x, `${name}.group_norm`, norm));
  const options = { batch: x.shape[0]!, heads: 1, bias: true };
  return add(x, toImage(tokenAttention(tokens, name, tokens, options), x));
}
