import { type AdapterBase, tiedEmbedding } from "./adapter-base.ts";
import { EVA_DEFAULTS, type LoraConfig } from "./lora-config.ts";
import { checkLoraConfig } from "./lora-faults.ts";
import { matchesModule, resolveTargets } from "./targets.ts";

/** Heads that PEFT trains in full with task_type SEQ_CLS, whatever else is said. */
const CLASSIFIERS: readonly string[] = ["classifier", "score"];

/**
 * `config` with what PEFT fills in when it makes an adapter for a model: the family's targets, the classifier's head,
 * the embedding in place of a head that stays tied to it, and options of the initialisation.
 * @throws LorikeetError `lora-config`
 */
export function completeConfig(config: LoraConfig, base: AdapterBase): LoraConfig {
  checkLoraConfig(config);
  const targets = config.targetModules ?? (base.family.defaults.length > 0 ? base.family.defaults : undefined); // prettier-ignore
  const saved = [
    ...(config.modulesToSave ?? []),
    ...(config.taskType === "SEQ_CLS" ? CLASSIFIERS : []),
  ];
  const complete: LoraConfig = {
    ...config,
    targetModules: targets,
    modulesToSave: saved.length > 0 ? [...new Set(saved)] : config.modulesToSave,
    ...(config.init === "eva" && { eva: config.eva ?? EVA_DEFAULTS }),
    ...(config.init === "loftq" && { loftqIterations: config.loftqIterations ?? 1 }),
  };
  return withNames(keepTied(complete, base), base);
}

/** With ensure_weight_tying, what is asked of the head is asked of the embedding whose matrix it shares. */
function keepTied(config: LoraConfig, base: AdapterBase): LoraConfig {
  const embedding = tiedEmbedding(base);
  if (!config.ensureWeightTying || embedding === undefined) return config;
  const { head } = base.family;
  const isHead = (name: string): boolean => matchesModule([name], head);
  const moved = (names: readonly string[]): readonly string[] => [
    ...new Set(names.map((name) => (isHead(name) ? embedding : name))),
  ];
  const { targetModules, modulesToSave } = config;
  return {
    ...config,
    targetModules:
      typeof targetModules === "string" ? targetModules : targetModules && moved(targetModules),
    modulesToSave: modulesToSave && moved(modulesToSave),
  };
}

/** PEFT takes no layers_to_transform beside "all-linear", so the layers are named one by one. */
function withNames(config: LoraConfig, { layers, family }: AdapterBase): LoraConfig {
  if (config.targetModules !== "all-linear" || !config.layersToTransform) return config;
  const targetModules = [...resolveTargets(config, layers, family).keys()];
  return { ...config, targetModules, layersToTransform: undefined, layersPattern: undefined };
}
