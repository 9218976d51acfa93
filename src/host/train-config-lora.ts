import { lora, type LoraConfig } from "../adapter/lora-config.ts";
import type { TrainConfig } from "./train-config.ts";

/** The LoRA part of `config` in the API's terms. */
export function loraOfConfig(config: TrainConfig): LoraConfig {
  return lora({
    r: config.r,
    alpha: config.lora_alpha,
    dropout: config.lora_dropout,
    targetModules: config.target_modules,
    excludeModules: config.exclude_modules ?? undefined,
    layersToTransform: config.layers_to_transform ?? undefined,
    rankPattern: config.rank_pattern,
    alphaPattern: config.alpha_pattern,
    useRslora: config.use_rslora,
    useDora: config.use_dora,
    init: config.init_lora_weights,
    baseModel: config.model,
  });
}
