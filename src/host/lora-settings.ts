import {
  EVA_DEFAULTS,
  type EvaConfig,
  lora,
  type LoraConfig,
  type LoraInit,
} from "../adapter/lora-config.ts";

/** Settings of the adapter, named as in PEFT's LoraConfig. */
export interface LoraSettings {
  r: number;
  lora_alpha: number;
  lora_dropout: number;
  target_modules: string | string[];
  exclude_modules: string | string[] | null;
  layers_to_transform: number[] | null;
  layers_pattern: string[] | null;
  target_parameters: string[] | null;
  rank_pattern: Record<string, number>;
  alpha_pattern: Record<string, number>;
  use_rslora: boolean;
  use_dora: boolean;
  bias: LoraConfig["bias"];
  lora_bias: boolean;
  modules_to_save: string[] | null;
  trainable_token_indices: number[] | Record<string, number[]> | null;
  ensure_weight_tying: boolean;
  init_lora_weights: boolean | string;
  eva_config: EvaSettings | null;
  loftq_config: { loftq_bits: 4; loftq_iter: number } | null;
  save_as_lora: boolean;
  full: boolean;
}

/** PEFT's EvaConfig, as far as it says something. */
export interface EvaSettings {
  rho: number;
  tau: number;
  use_label_mask: boolean;
  whiten: boolean;
  adjust_scaling_factors: boolean;
}

/** The adapter that `config` asks for, in the API's terms; the initialisation is not checked yet. */
export function loraOfConfig(config: LoraSettings & { readonly model: string }): LoraConfig {
  return lora({
    r: config.r,
    alpha: config.lora_alpha,
    dropout: config.lora_dropout,
    targetModules: config.target_modules,
    excludeModules: config.exclude_modules ?? undefined,
    layersToTransform: config.layers_to_transform ?? undefined,
    layersPattern: config.layers_pattern ?? undefined,
    targetParameters: config.target_parameters ?? undefined,
    rankPattern: config.rank_pattern,
    alphaPattern: config.alpha_pattern,
    useRslora: config.use_rslora,
    useDora: config.use_dora,
    bias: config.bias,
    loraBias: config.lora_bias,
    modulesToSave: config.modules_to_save ?? undefined,
    trainableTokenIndices: config.trainable_token_indices ?? undefined,
    ensureWeightTying: config.ensure_weight_tying,
    init: config.init_lora_weights as LoraInit,
    ...(config.eva_config && { eva: evaOf(config.eva_config) }),
    ...(config.loftq_config && { loftqIterations: config.loftq_config.loftq_iter }),
    taskType: "CAUSAL_LM",
    baseModel: config.model,
  });
}

/** The settings that say of a run what `lora` does, for its record. */
export function settingsOfLora(lora: LoraConfig): Partial<LoraSettings> {
  return {
    r: lora.r,
    lora_alpha: lora.alpha,
    lora_dropout: lora.dropout,
    ...(lora.targetModules !== undefined && {
      target_modules: lora.targetModules as string | string[],
    }),
    exclude_modules: (lora.excludeModules ?? null) as string | string[] | null,
    layers_to_transform: (lora.layersToTransform ?? null) as number[] | null,
    layers_pattern: (lora.layersPattern ?? null) as string[] | null,
    target_parameters: (lora.targetParameters ?? null) as string[] | null,
    rank_pattern: lora.rankPattern,
    alpha_pattern: lora.alphaPattern,
    use_rslora: lora.useRslora,
    use_dora: lora.useDora,
    bias: lora.bias,
    lora_bias: lora.loraBias,
    modules_to_save: (lora.modulesToSave ?? null) as string[] | null,
    trainable_token_indices: (lora.trainableTokenIndices ?? null) as LoraSettings["trainable_token_indices"], // prettier-ignore
    ensure_weight_tying: lora.ensureWeightTying,
    init_lora_weights: lora.init,
    eva_config: lora.eva ? evaSettings(lora.eva) : null,
    ...(lora.loftqIterations !== undefined && {
      loftq_config: { loftq_bits: 4, loftq_iter: lora.loftqIterations },
    }),
  };
}

function evaOf(settings: EvaSettings): EvaConfig {
  return {
    ...EVA_DEFAULTS,
    rho: settings.rho,
    tau: settings.tau,
    useLabelMask: settings.use_label_mask,
    whiten: settings.whiten,
    adjustScalingFactors: settings.adjust_scaling_factors,
  };
}

function evaSettings(eva: EvaConfig): EvaSettings {
  return {
    rho: eva.rho,
    tau: eva.tau,
    use_label_mask: eva.useLabelMask,
    whiten: eva.whiten,
    adjust_scaling_factors: eva.adjustScalingFactors,
  };
}
