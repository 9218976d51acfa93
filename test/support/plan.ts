import { lora } from "../../src/adapter/lora-config.ts";
import { resolveTargets } from "../../src/adapter/targets.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { loraTargets } from "../../src/models/lora-targets.ts";
import { loraCandidates } from "../../src/passes/lora.ts";
import type { TrainPlan } from "../../src/train/plan.ts";
import { plainLogits } from "../../src/train/text-model.ts";

/** LoRA with dropout on all linear layers of a model, activations computed twice. */
export function planOf(config: HfConfig, extra: Partial<TrainPlan> = {}): TrainPlan {
  const layers = loraCandidates([plainLogits(config, { batch: 1, length: 8 })]);
  const adapter = lora({ r: 4, targetModules: "all-linear", dropout: 0.1 });
  const sites = resolveTargets(adapter, layers, loraTargets(String(config["model_type"])));
  return { config, sites, trainsWeight: () => false, checkpointing: true, ...extra };
}
