/** @file Names of the autoencoder's layers in Stable Diffusion's original checkpoints and in diffusers. */

const parts: readonly (readonly [string, string])[] = [
  [".mid.block_1.", ".mid_block.resnets.0."],
  [".mid.block_2.", ".mid_block.resnets.1."],
  [".mid.attn_1.norm.", ".mid_block.attentions.0.group_norm."],
  [".mid.attn_1.q.", ".mid_block.attentions.0.to_q."],
  [".mid.attn_1.k.", ".mid_block.attentions.0.to_k."],
  [".mid.attn_1.v.", ".mid_block.attentions.0.to_v."],
  [".mid.attn_1.proj_out.", ".mid_block.attentions.0.to_out.0."],
  [".nin_shortcut.", ".conv_shortcut."],
  [".norm_out.", ".conv_norm_out."],
  [".downsample.conv.", ".downsamplers.0.conv."],
  [".upsample.conv.", ".upsamplers.0.conv."],
];

/** The name in original checkpoints of the weight that diffusers calls `name`, in an autoencoder of `levels` sizes. */
export function toOriginalVaeName(name: string, levels: number): string {
  const renamed = parts.reduce((text, [theirs, own]) => text.replace(own, theirs), name);
  return renamed
    .replace(
      /^encoder\.down_blocks\.(\d+)\.(resnets\.)?/,
      (_, level: string, block?: string) => `encoder.down.${level}.${block ? "block." : ""}`,
    )
    .replace(
      /^decoder\.up_blocks\.(\d+)\.(resnets\.)?/,
      (_, level: string, block?: string) =>
        `decoder.up.${levels - 1 - Number(level)}.${block ? "block." : ""}`,
    );
}
