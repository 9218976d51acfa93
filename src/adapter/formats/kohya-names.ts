/** @file Names of LoRA modules in kohya's files: prefixes for models, dots as underscores, original names in SDXL. */
import {
  fromOriginalUnetName,
  toOriginalUnetName,
  type UnetLayout,
} from "../../formats/stable-diffusion/unet-names.ts";

/** Words of module names that hold an underscore themselves. */
const WORDS = [
  "down_blocks",
  "up_blocks",
  "mid_block",
  "transformer_blocks",
  "input_blocks",
  "output_blocks",
  "middle_block",
  "in_layers",
  "out_layers",
  "emb_layers",
  "skip_connection",
  "time_embed",
  "label_emb",
  "time_embedding",
  "add_embedding",
  "time_emb_proj",
  "conv_in",
  "conv_out",
  "conv_shortcut",
  "conv_norm_out",
  "linear_1",
  "linear_2",
  "proj_in",
  "proj_out",
  "to_q",
  "to_k",
  "to_v",
  "to_out",
  "text_model",
  "self_attn",
  "q_proj",
  "k_proj",
  "v_proj",
  "out_proj",
  "token_embedding",
  "position_embedding",
  "text_projection",
].sort((a, b) => b.length - a.length);

const WORD = new RegExp(`^(?:${WORDS.join("|")}|[^_]+)(?=_|$)`);

/** How a pipeline's modules are called in kohya's files. */
export interface KohyaNaming {
  /** SDXL has two text encoders and its UNet's original names. */
  readonly isXl: boolean;
  readonly layout: UnetLayout;
}

/** `lora_unet_mid_block_attentions_0_proj_in` for `unet.mid_block.attentions.0.proj_in`; undefined for other models. */
export function toKohyaName(module: string, { isXl, layout }: KohyaNaming): string | undefined {
  const [, model, path] = /^(unet|text_encoder|text_encoder_2)\.(.+)$/.exec(module) ?? [];
  if (model === undefined) return undefined;
  if (model === "unet")
    return `lora_unet_${flat(isXl ? toOriginalUnetName(path!, layout) : path!)}`;
  const prefix = model === "text_encoder_2" ? "lora_te2" : isXl ? "lora_te1" : "lora_te";
  return `${prefix}_${flat(path!)}`;
}

/** The inverse of `toKohyaName`; original names of the UNet are known by themselves. */
export function fromKohyaName(name: string, layout: UnetLayout): string | undefined {
  const [, prefix, text] = /^lora_(unet|te1|te2|te)_(.+)$/.exec(name) ?? [];
  if (prefix === undefined) return undefined;
  const path = dotted(text!);
  if (prefix === "unet") return `unet.${fromOriginalUnetName(path, layout)}`;
  return `${prefix === "te2" ? "text_encoder_2" : "text_encoder"}.${path}`;
}

function flat(path: string): string {
  return path.replaceAll(".", "_");
}

function dotted(text: string): string {
  const words: string[] = [];
  for (let rest = text; rest !== "";) {
    const word = WORD.exec(rest)?.[0] ?? rest;
    words.push(word);
    rest = rest.slice(word.length + 1);
  }
  return words.join(".");
}
