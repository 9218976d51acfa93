import { LorikeetError } from "../../errors.ts";
import { faultsError } from "../../formats/faults.ts";
import { convert } from "../../tensor/convert.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Adapter } from "../adapter.ts";
import { type AdaptedModule, adapterOfModules, pairOf } from "../adapter-modules.ts";
import { adaptersByModel, imageModules, PIPELINE_MODELS } from "../image-adapter.ts";
import type { LoraConfig } from "../lora-config.ts";
import { type AdapterJson, parsePeftConfig, toPeftConfig } from "../peft-config.ts";
import { siteOf } from "../targets.ts";
import { type LoraFile, METADATA } from "./lora-file.ts";

/** Name that diffusers gives a LoRA file. */
export const DIFFUSERS_FILE = "pytorch_lora_weights.safetensors";

/** What the metadata says of one model's adapter, read and as it stands. */
export interface ModelConfig {
  readonly config: LoraConfig;
  readonly source: AdapterJson;
}

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
  const configs = modelConfigs(metadata);
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
  const first = [...configs.values()][0]?.config;
  return adapterOfModules(found, {
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
  const { [METADATA]: stored, ...others } = adapter.metadata ?? {};
  const isPlain = [...modules.values()].every(
    ({ parts, alpha }) => alpha === pairOf(parts).a.shape[0] && parts.size === 2,
  );
  const kept = keptConfigs(adapter, modules).size > 0 ? stored : undefined;
  const config = kept ?? (isPlain ? undefined : metadataOf(adaptersByModel(adapter)));
  return {
    tensors,
    metadata: {
      ...others,
      ...(config !== undefined && { [METADATA]: config }),
      format: "pt",
    },
  };
}

/** What `adapter` has for each model, with the configuration that its file gave while that still holds. */
export function modelAdapters(adapter: Adapter): Map<string, Adapter> {
  const kept = keptConfigs(adapter, imageModules(adapter));
  return new Map(
    [...adaptersByModel(adapter)].map(([model, own]) => [model, { ...own, ...kept.get(model) }]),
  );
}

/** The configurations in the metadata; none when ranks or alphas are no longer what they say. */
function keptConfigs(
  adapter: Adapter,
  modules: ReadonlyMap<string, AdaptedModule>,
): Map<string, ModelConfig> {
  const configs = modelConfigs(adapter.metadata ?? {});
  const holds = [...modules].every(
    ([module, { parts, alpha }]) => alphaOf(module, parts, configs) === alpha,
  );
  return holds ? configs : new Map<string, ModelConfig>();
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

/**
 * The module's name in checkpoints: `attn1.processor.to_q_lora` was `attn1.to_q`, and CLIPTextModel of transformers 5
 * has no `text_model.` in it.
 */
function current(module: string): string {
  const names = module.startsWith("unet.") ? PROCESSORS : IN_TEXT;
  const named = module.replace(
    /^(text_encoder(?:_2)?)\.(?=encoder\.|embeddings\.)/,
    "$1.text_model.",
  );
  return named.replace(
    /\.(?:processor\.)?(to_(?:q|k|v|out)_lora)$/,
    (_, old: string) => `.${names[old]!}`,
  );
}

/** The configuration of each model that the metadata describes. */
export function modelConfigs(metadata: Readonly<Record<string, string>>): Map<string, ModelConfig> {
  const text = metadata[METADATA];
  const configs = new Map<string, ModelConfig>();
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
    if (own.length === 0) continue;
    const source: AdapterJson = Object.fromEntries(fields) as AdapterJson;
    configs.set(model, { config: parsePeftConfig({ peft_type: "LORA", ...source }), source });
  }
  return configs;
}

/** What alpha a module has by the metadata; undefined without one. */
function alphaOf(
  module: string,
  parts: ReadonlyMap<string, Tensor>,
  configs: ReadonlyMap<string, ModelConfig>,
): number | undefined {
  const model = module.slice(0, module.indexOf("."));
  const config = configs.get(model)?.config;
  const rank = parts.get("lora_A.weight")?.shape[0];
  if (!config || rank === undefined) return undefined;
  return siteOf(config, module.slice(model.length + 1)).scale * rank;
}

/** One PEFT configuration for each model, as one JSON object whose fields begin with the model's name. */
export function metadataOf(models: ReadonlyMap<string, Adapter>): string {
  const fields = [...models].flatMap(([model, { config, source }]) =>
    Object.entries(source ?? toPeftConfig(config)).map(
      ([name, value]) => [`${model}.${name}`, value] as const,
    ),
  );
  fields.sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(Object.fromEntries(fields), undefined, 2);
}
