import { LorikeetError } from "../../errors.ts";
import { faultsError } from "../../formats/faults.ts";
import { convert } from "../../tensor/convert.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Adapter } from "../adapter.ts";
import { pairOf } from "../adapter-modules.ts";
import { imageAdapter, type ImageModule, imageModules, PIPELINE_MODELS } from "../image-adapter.ts";
import type { LoraConfig } from "../lora-config.ts";
import { type AdapterJson, parsePeftConfig, toPeftConfig } from "../peft-config.ts";
import { siteOf } from "../targets.ts";
import type { LoraFile } from "./kohya.ts";

/** Name that diffusers gives a LoRA file. */
export const DIFFUSERS_FILE = "pytorch_lora_weights.safetensors";
const METADATA = "lora_adapter_metadata";

/** Endings of keys, over all that diffusers ever wrote, and what they are in PEFT's names. */
const PARTS: readonly (readonly [RegExp, string])[] = [
  [
    /(?:\.lora\.down|\.lora_linear_layer\.down|(?<=_lora)\.down|\.lora_A)\.weight$/,
    "lora_A.weight",
  ],
  [/(?:\.lora\.up|\.lora_linear_layer\.up|(?<=_lora)\.up|\.lora_B)\.weight$/, "lora_B.weight"],
  [/\.lora_B\.bias$/, "lora_B.bias"],
  [/\.lora_magnitude_vector(?:\.weight)?$/, "lora_magnitude_vector"],
  [/\.alpha$/, "alpha"],
];

/** Attention layers as their processors once held them. */
const PROCESSORS: Readonly<Record<string, string>> = {
  to_q_lora: "to_q",
  to_k_lora: "to_k",
  to_v_lora: "to_v",
  to_out_lora: "to_out.0",
};
const IN_TEXT: Readonly<Record<string, string>> = {
  to_q_lora: "q_proj",
  to_k_lora: "k_proj",
  to_v_lora: "v_proj",
  to_out_lora: "out_proj",
};

/**
 * The adapter in a file that diffusers saved, with `lora_adapter_metadata` or (alpha is the rank then) without, in any of
 * its spellings; keys without a model's name are the UNet's.
 * https://github.com/huggingface/diffusers/blob/main/src/diffusers/loaders/lora_pipeline.py
 * @throws LorikeetError `adapter-tensors` for unknown keys; `adapter-config` when the metadata does not parse
 */
export function adapterFromDiffusers({ tensors, metadata }: LoraFile): Adapter {
  const configs = configsOf(metadata);
  const found = new Map<string, { parts: Map<string, Tensor>; alpha: number | undefined }>();
  const unknown: string[] = [];
  for (const [key, value] of tensors) {
    const place = placeOf(key);
    if (!place) {
      unknown.push(key);
      continue;
    }
    const { module, part } = place;
    const entry = found.get(module) ?? { parts: new Map<string, Tensor>(), alpha: undefined };
    found.set(module, entry);
    if (part === "alpha") entry.alpha = Number(convert(value, "f32").data[0]) || undefined;
    else entry.parts.set(part, value);
  }
  if (unknown.length > 0)
    throw faultsError(
      "adapter-tensors",
      "the keys of a LoRA for a UNet and its text encoders",
      unknown,
      "Adapters of FLUX, SD 3 and video models (transformer.…) are not supported.",
    );
  for (const [module, entry] of found) entry.alpha ??= alphaOf(module, entry.parts, configs);
  const first = [...configs.values()][0];
  return imageAdapter(found, {
    metadata,
    ...(first && { dropout: first.dropout, init: first.init, baseModel: first.baseModel }),
  });
}

/** `adapter` as diffusers saves it. Scales other than 1 stand in the metadata. */
export function adapterToDiffusers(adapter: Adapter): LoraFile {
  const modules = imageModules(adapter);
  const isAttention = [...modules.keys()].every((module) =>
    /\.(to_q|to_k|to_v|to_out\.0|[qkv]_proj|out_proj)$/.test(module),
  );
  const tensors = new Map<string, Tensor>();
  for (const [module, { parts }] of modules) {
    const isText = module.startsWith("text_encoder");
    const [down, up] = !isAttention
      ? ["lora_A", "lora_B"]
      : isText
        ? ["lora_linear_layer.down", "lora_linear_layer.up"]
        : ["lora.down", "lora.up"];
    const { a, b } = pairOf(parts);
    tensors.set(`${module}.${down}.weight`, a);
    tensors.set(`${module}.${up}.weight`, b);
    for (const part of ["lora_B.bias", "lora_magnitude_vector"])
      if (parts.has(part)) tensors.set(`${module}.${part}`, parts.get(part)!);
  }
  const kept = adapter.metadata?.[METADATA];
  const isPlain = [...modules.values()].every(
    ({ parts, alpha }) => alpha === pairOf(parts).a.shape[0] && parts.size === 2,
  );
  const config = kept ?? (isPlain ? undefined : metadataOf(adapter, modules));
  return {
    tensors,
    metadata: { ...(config !== undefined && { [METADATA]: config }), format: "pt" },
  };
}

/** Module and part that `key` means. */
function placeOf(key: string): { module: string; part: string } | undefined {
  const ending = PARTS.find(([pattern]) => pattern.test(key));
  if (!ending) return undefined;
  const path = key.replace(ending[0], "").replace(/^base_model\.model\./, "");
  const isNamed = PIPELINE_MODELS.some((model) => path.startsWith(`${model}.`));
  const isUnet = /^(conv_in|conv_out|time_embedding|add_embedding|(down|up)_blocks|mid_block)\b/;
  const module = isNamed ? path : isUnet.test(path) ? `unet.${path}` : undefined;
  return module === undefined ? undefined : { module: current(module), part: ending[1] };
}

/** The module's name now: `attn1.processor.to_q_lora` was `attn1.to_q`. */
function current(module: string): string {
  const names = module.startsWith("unet.") ? PROCESSORS : IN_TEXT;
  return module.replace(
    /\.(?:processor\.)?(to_(?:q|k|v|out)_lora)$/,
    (_, old: string) => `.${names[old]!}`,
  );
}

/** The configuration of each model that the metadata describes. */
function configsOf(metadata: Readonly<Record<string, string>>): Map<string, LoraConfig> {
  const text = metadata[METADATA];
  const configs = new Map<string, LoraConfig>();
  if (text === undefined) return configs;
  let json: AdapterJson;
  try {
    json = JSON.parse(text) as AdapterJson;
  } catch (cause) {
    throw new LorikeetError(
      "adapter-config",
      `Expected ${METADATA} to be JSON; it does not parse`,
      {
        hint: "Save the adapter again, or remove its metadata: alpha is then the rank.",
        cause,
      },
    );
  }
  for (const model of PIPELINE_MODELS) {
    const own = Object.entries(json).filter(([name]) => name.startsWith(`${model}.`));
    const fields = own.map(([name, value]) => [name.slice(model.length + 1), value]);
    if (own.length > 0)
      configs.set(
        model,
        parsePeftConfig({ peft_type: "LORA", ...(Object.fromEntries(fields) as AdapterJson) }),
      );
  }
  return configs;
}

/** What alpha a module has by the metadata; undefined without one. */
function alphaOf(
  module: string,
  parts: ReadonlyMap<string, Tensor>,
  configs: ReadonlyMap<string, LoraConfig>,
): number | undefined {
  const model = module.slice(0, module.indexOf("."));
  const config = configs.get(model);
  const rank = parts.get("lora_A.weight")?.shape[0];
  if (!config || rank === undefined) return undefined;
  return siteOf(config, module.slice(model.length + 1)).scale * rank;
}

/** One PEFT configuration for each model, as one JSON object whose fields begin with the model's name. */
function metadataOf({ config }: Adapter, modules: ReadonlyMap<string, ImageModule>): string {
  const fields: [string, unknown][] = [];
  for (const model of PIPELINE_MODELS) {
    const own = [...modules].filter(([module]) => module.startsWith(`${model}.`));
    if (own.length === 0) continue;
    const named = own.map(([module, value]) => [module.slice(model.length + 1), value] as const);
    const part = imageAdapter(new Map(named), {
      dropout: config.dropout,
      init: config.init,
      baseModel: config.baseModel,
    });
    for (const [name, value] of Object.entries(toPeftConfig(part.config)))
      fields.push([`${model}.${name}`, value]);
  }
  fields.sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(Object.fromEntries(fields), undefined, 2);
}
