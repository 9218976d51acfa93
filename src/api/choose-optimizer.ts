import { peftKey } from "../adapter/adapter.ts";
import type { TrainConfig } from "../host/train-config.ts";
import { checkLoraFa, isHeldByLoraFa, loraFa } from "../train/lora-fa.ts";
import { loraPlusScales, withoutDecay } from "../train/lora-plus.ts";
import type { TrainSetup } from "../train/setup.ts";
import type { TrainTask } from "./train-task.ts";

/** What holds a parameter still in a run of `config`: part of the plan of a step. */
export function heldBy({ optim }: TrainConfig): { isHeld?: (name: string) => boolean } {
  return optim === "lorafa" ? { isHeld: isHeldByLoraFa } : {};
}

/** How the gradients of `task` change what trains. @throws LorikeetError `lora-config` */
export function chooseOptimizer(
  config: TrainConfig,
  { parameters, sites, base, start }: Pick<TrainTask, "parameters" | "sites" | "base" | "start">,
): Pick<TrainSetup, "optimizer" | "apply"> {
  const optimizer = {
    betas: [config.adam_beta1, config.adam_beta2] as const,
    eps: config.adam_epsilon,
    weightDecay: config.weight_decay,
    maxGradNorm: config.max_grad_norm > 0 ? config.max_grad_norm : Infinity,
  };
  if (config.optim === "lorafa") {
    checkLoraFa(start.config, sites, base.layers);
    return { optimizer, apply: loraFa(parameters, sites, peftKey) };
  }
  if (config.loraplus_lr_ratio === null) return { optimizer };
  const learningRateScales = loraPlusScales(parameters, {
    ratio: config.loraplus_lr_ratio,
    embeddingRate: config.loraplus_lr_embedding,
    learningRate: config.learning_rate,
  });
  return { optimizer: { ...optimizer, learningRateScales }, apply: withoutDecay(parameters) };
}
