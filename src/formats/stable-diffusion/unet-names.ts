/** @file Names of a UNet's layers in Stable Diffusion's original checkpoints (and kohya's SDXL LoRA) and in diffusers. */

/** What the numbers in original names depend on. */
export interface UnetLayout {
  readonly layersPerBlock: number;
  /** For each block on the way up, from the coarsest, whether it attends to the text. */
  readonly attendsUp: readonly boolean[];
}

/** The layout of SDXL. */
export const SDXL_LAYOUT: UnetLayout = { layersPerBlock: 2, attendsUp: [true, true, false] };

/** The layout that a UNet's `config.json` describes. */
export function unetLayout(config: Readonly<Record<string, unknown>>): UnetLayout {
  const up = (config["up_block_types"] ?? []) as readonly string[];
  return {
    layersPerBlock: Number(config["layers_per_block"] ?? 2),
    attendsUp: up.map((type) => type === "CrossAttnUpBlock2D"),
  };
}

const ends: readonly (readonly [string, string])[] = [
  ["conv_in", "input_blocks.0.0"],
  ["time_embedding.linear_1", "time_embed.0"],
  ["time_embedding.linear_2", "time_embed.2"],
  ["add_embedding.linear_1", "label_emb.0.0"],
  ["add_embedding.linear_2", "label_emb.0.2"],
  ["mid_block.resnets.0", "middle_block.0"],
  ["mid_block.attentions.0", "middle_block.1"],
  ["mid_block.resnets.1", "middle_block.2"],
  ["conv_norm_out", "out.0"],
  ["conv_out", "out.2"],
];

const resnetParts: readonly (readonly [string, string])[] = [
  ["norm1", "in_layers.0"],
  ["conv1", "in_layers.2"],
  ["time_emb_proj", "emb_layers.1"],
  ["norm2", "out_layers.0"],
  ["conv2", "out_layers.3"],
  ["conv_shortcut", "skip_connection"],
];

/** The original name of the layer (or weight) that diffusers calls `name`. */
export function toOriginalUnetName(name: string, layout: UnetLayout): string {
  const place = originalPlace(name, layout);
  return /(^|\.)resnets\./.test(name) ? replacePart(place, resnetParts, 0) : place;
}

/** The name in diffusers of the layer (or weight) that is called `name` in original checkpoints. */
export function fromOriginalUnetName(name: string, { layersPerBlock }: UnetLayout): string {
  return replacePart(diffusersPlace(name, layersPerBlock + 1), resnetParts, 1);
}

function originalPlace(name: string, { layersPerBlock, attendsUp }: UnetLayout): string {
  const end = ends.find(([own]) => isWithin(name, own));
  if (end) return end[1] + name.slice(end[0].length);
  const [, way, block, kind, index, rest] =
    /^(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(.*)$/.exec(
      name,
    ) ?? [];
  if (way === undefined) return name;
  const isSampler = kind!.endsWith("samplers");
  const first = Number(block) * (layersPerBlock + 1);
  if (way === "down") {
    const number = 1 + first + (isSampler ? layersPerBlock : Number(index));
    const part = isSampler ? rest!.replace(".conv", ".op") : rest!;
    return `input_blocks.${number}.${kind === "attentions" ? 1 : 0}${part}`;
  }
  const number = first + (isSampler ? layersPerBlock : Number(index));
  const place = isSampler ? (attendsUp[Number(block)] ? 2 : 1) : kind === "attentions" ? 1 : 0;
  return `output_blocks.${number}.${place}${rest!}`;
}

function diffusersPlace(name: string, perBlock: number): string {
  const end = ends.find(([, theirs]) => isWithin(name, theirs));
  if (end) return end[0] + name.slice(end[1].length);
  const [, way, number, place, rest] = /^(input|output)_blocks\.(\d+)\.(\d+)(.*)$/.exec(name) ?? [];
  if (way === undefined) return name;
  const count = Number(number) - (way === "input" ? 1 : 0);
  const [block, index] = [Math.floor(count / perBlock), count % perBlock];
  if (way === "input") {
    if (/^\.op(\.|$)/.test(rest!))
      return `down_blocks.${block}.downsamplers.0.conv${rest!.slice(3)}`;
    return `down_blocks.${block}.${place === "0" ? "resnets" : "attentions"}.${index}${rest!}`;
  }
  if (/^\.conv(\.|$)/.test(rest!)) return `up_blocks.${block}.upsamplers.0${rest!}`;
  return `up_blocks.${block}.${place === "0" ? "resnets" : "attentions"}.${index}${rest!}`;
}

function isWithin(name: string, module: string): boolean {
  return name === module || name.startsWith(`${module}.`);
}

/** Replaces the part of a residual block in `name`, from column `from` of `parts` to the other. */
function replacePart(
  name: string,
  parts: readonly (readonly [string, string])[],
  from: 0 | 1,
): string {
  for (const pair of parts) {
    const [old, next] = [pair[from], pair[1 - from]!];
    const at = `${name}.`.indexOf(`.${old}.`);
    if (at >= 0) return name.slice(0, at + 1) + next + name.slice(at + 1 + old.length);
  }
  return name;
}
