import { LorikeetError } from "../errors.ts";
import { EVA_DEFAULTS, type EvaConfig, initOf, lora, type LoraConfig } from "./lora-config.ts";
import { patternFaults } from "./lora-faults.ts";
import { checkPeftConfig } from "./peft-config-faults.ts";

/** Parsed `adapter_config.json`. */
export type AdapterJson = Readonly<Record<string, unknown>>;

/** PEFT 0.21's LoraConfig as saved, at its defaults: every field that the file has. */
const defaults: AdapterJson = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: null,
  bias: "none",
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  kasa_config: null,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 8,
  lora_bias: false,
  lora_dropout: 0,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: "megatron.core",
  modules_to_save: null,
  monteclora_config: null,
  peft_type: "LORA",
  peft_version: "0.21.0",
  qalora_group_size: 16,
  r: 8,
  rank_pattern: {},
  revision: null,
  target_modules: null,
  target_parameters: null,
  task_type: null,
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
  velora_config: null,
};

const FIELDS: ReadonlySet<string> = new Set(Object.keys(defaults));

/**
 * The configuration in an `adapter_config.json`.
 * @throws LorikeetError `peft-type` when it is not LoRA, and what `checkPeftConfig` throws
 */
export function parsePeftConfig(json: AdapterJson): LoraConfig {
  if (json["peft_type"] !== "LORA")
    throw new LorikeetError(
      "peft-type",
      `Expected an adapter of peft_type LORA, got ${JSON.stringify(json["peft_type"])}`,
      {
        hint: "Merge an adapter of another method with PEFT into its base and use the merged model.",
      },
    );
  checkPeftConfig(json, FIELDS);
  const get = (field: string): never => (json[field] ?? defaults[field]) as never;
  const optional = (field: string): never => (json[field] ?? undefined) as never;
  const config = lora({
    r: get("r"),
    alpha: get("lora_alpha"),
    dropout: get("lora_dropout"),
    targetModules: optional("target_modules"),
    excludeModules: optional("exclude_modules"),
    layersToTransform: listOf<number>(optional("layers_to_transform")),
    layersPattern: listOf<string>(optional("layers_pattern")),
    rankPattern: get("rank_pattern"),
    alphaPattern: get("alpha_pattern"),
    bias: get("bias"),
    loraBias: get("lora_bias"),
    fanInFanOut: get("fan_in_fan_out"),
    useRslora: get("use_rslora"),
    useDora: get("use_dora"),
    modulesToSave: optional("modules_to_save"),
    trainableTokenIndices: optional("trainable_token_indices"),
    targetParameters: optional("target_parameters"),
    ensureWeightTying: get("ensure_weight_tying"),
    init: get("init_lora_weights"),
    ...evaOf(optional("eva_config")),
    ...loftqOf(get("loftq_config")),
    taskType: optional("task_type"),
    baseModel: optional("base_model_name_or_path"),
  });
  const faults = patternFaults(config);
  if (faults.length === 0) return config;
  throw new LorikeetError("adapter-config", faults.join("\n"), {
    hint: "Name the modules in a list; Python's own syntax, such as (?P<name>…), is not read.",
  });
}

/** `adapter_config.json` of `config`: PEFT's fields, sorted. Fields of `original` that Lorikeet does not read are kept. */
export function toPeftConfig(config: LoraConfig, original: AdapterJson = {}): AdapterJson {
  const json: Record<string, unknown> = {
    ...defaults,
    ...original,
    r: config.r,
    lora_alpha: config.alpha,
    lora_dropout: config.dropout,
    rank_pattern: config.rankPattern,
    alpha_pattern: config.alphaPattern,
    bias: config.bias,
    lora_bias: config.loraBias,
    fan_in_fan_out: config.fanInFanOut,
    use_rslora: config.useRslora,
    use_dora: config.useDora,
    ensure_weight_tying: config.ensureWeightTying,
    ...initJson(config, original),
    ...nullable({
      target_modules: config.targetModules,
      exclude_modules: config.excludeModules,
      layers_to_transform: original["layers_to_transform"] ?? config.layersToTransform,
      layers_pattern: original["layers_pattern"] ?? config.layersPattern,
      modules_to_save: config.modulesToSave,
      trainable_token_indices: config.trainableTokenIndices,
      target_parameters: config.targetParameters,
      task_type: config.taskType,
      base_model_name_or_path: config.baseModel,
    }),
  };
  return Object.fromEntries(Object.entries(json).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function nullable(fields: AdapterJson): AdapterJson {
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, value ?? null]));
}

function initJson({ init, eva, loftqIterations }: LoraConfig, original: AdapterJson): AdapterJson {
  const written = original["init_lora_weights"];
  const name = init === "kaiming-normal" ? true : init;
  return {
    init_lora_weights: initOf(written) === name ? written : name,
    ...(init === "eva" && { eva_config: original["eva_config"] ?? evaJson(eva ?? EVA_DEFAULTS) }),
    ...(init === "loftq" && { loftq_config: { loftq_bits: 4, loftq_iter: loftqIterations ?? 1 } }),
  };
}

function evaOf(json: AdapterJson | undefined): { eva?: EvaConfig } {
  if (!json) return {};
  const get = <T>(field: string, standard: T): T => (json[field] ?? standard) as T;
  return {
    eva: {
      rho: get("rho", EVA_DEFAULTS.rho),
      tau: get("tau", EVA_DEFAULTS.tau),
      useLabelMask: get("use_label_mask", EVA_DEFAULTS.useLabelMask),
      whiten: get("whiten", EVA_DEFAULTS.whiten),
      adjustScalingFactors: get("adjust_scaling_factors", EVA_DEFAULTS.adjustScalingFactors),
    },
  };
}

function evaJson(eva: EvaConfig): AdapterJson {
  return {
    adjust_scaling_factors: eva.adjustScalingFactors,
    label_mask_value: -100,
    rho: eva.rho,
    tau: eva.tau,
    use_label_mask: eva.useLabelMask,
    whiten: eva.whiten,
  };
}

/** @throws LorikeetError `unsupported-lora-variant` for other bits than 4 */
function loftqOf(json: AdapterJson): { loftqIterations?: number } {
  const { loftq_bits: bits = 4, loftq_iter: iterations = 1 } = json;
  if (bits !== 4)
    throw new LorikeetError(
      "unsupported-lora-variant",
      `Expected LoftQ at 4 bits, got loftq_bits ${JSON.stringify(bits)}`,
      { hint: "Merge the adapter with PEFT into its base and use the merged model." },
    );
  return Object.keys(json).length === 0 ? {} : { loftqIterations: Number(iterations) };
}

function listOf<T>(value: T | T[] | undefined): T[] | undefined {
  if (value === undefined) return undefined;
  return Array.isArray(value) ? value : [value];
}
