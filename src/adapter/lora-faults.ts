import { LorikeetError } from "../errors.ts";
import { changesBase } from "./init/initial-part.ts";
import type { LoraConfig } from "./lora-config.ts";

/** Initialisations that PEFT has and Lorikeet has not, by their names in `init_lora_weights`. */
const UNBUILT_INITS: Readonly<Record<string, string>> = {
  corda: "CorDA",
  lora_ga: "LoRA-GA",
  mica: "MiCA",
};

/** Fields of PEFT's LoraConfig for variants that are not built: an adapter that sets one computes something else. */
export const UNBUILT_FIELDS: Readonly<Record<string, string>> = {
  alora_invocation_tokens: "aLoRA",
  arrow_config: "Arrow",
  corda_config: "CorDA",
  kasa_config: "KaSA",
  layer_replication: "layer replication",
  lora_ga_config: "LoRA-GA",
  megatron_config: "Megatron layers",
  monteclora_config: "MonteCLoRA",
  use_bdlora: "BD-LoRA",
  use_qalora: "QALoRA",
  velora_config: "VeLoRA",
};

const INITS =
  /^(true|false|gaussian|kaiming-normal|pissa(_niter_\d+)?|olora|orthogonal|eva|loftq)$/;

const BIASES: ReadonlySet<string> = new Set(["none", "all", "lora_only"]);

/** Whether `init` is an initialisation that is built. */
export function isKnownInit(init: unknown): boolean {
  return INITS.test(String(init));
}

/** What `init` is called where it is not built, or undefined. */
export function unbuiltInit(init: unknown): string | undefined {
  return typeof init === "string" ? UNBUILT_INITS[init.toLowerCase()] : undefined;
}

/** What an adapter of `config` is beyond scale · B·A on layers of the untouched base. */
export function beyondLora(config: LoraConfig): string[] {
  const { init } = config;
  return [
    config.useDora ? "DoRA" : "",
    config.loraBias ? "lora_bias" : "",
    config.targetParameters?.length ? "target_parameters" : "",
    config.ensureWeightTying ? "ensure_weight_tying" : "",
    changesBase(init) ? `${String(init)}, which changed its base` : "",
  ].filter((extra) => extra !== "");
}

/** Every reason why PEFT would not make an adapter of `config`, as sentences. */
export function loraFaults(config: LoraConfig): string[] {
  return [...valueFaults(config), ...patternFaults(config), ...conflicts(config)];
}

/** The regular expressions of `config` that are none, as sentences. */
export function patternFaults(config: LoraConfig): string[] {
  const { targetModules, excludeModules, layersPattern = [], rankPattern, alphaPattern } = config;
  const whole = [targetModules, excludeModules].filter((value) => typeof value === "string");
  const patterns = [
    ...whole,
    ...layersPattern,
    ...Object.keys({ ...rankPattern, ...alphaPattern }),
  ];
  return [...new Set(patterns)].flatMap((pattern) => {
    try {
      new RegExp(pattern);
      return [];
    } catch (error) {
      return [`Expected a regular expression of JavaScript: ${(error as Error).message}.`];
    }
  });
}

function valueFaults(config: LoraConfig): string[] {
  const { r, rankPattern, init, eva } = config;
  const faults = rangeFaults(config);
  const ranks = [r, ...Object.values(rankPattern)];
  const unbuilt = unbuiltInit(init);
  if (!ranks.every((rank) => Number.isInteger(rank) && rank > 0))
    faults.push(`Expected ranks to be positive whole numbers, got ${ranks.join(", ")}.`);
  if (unbuilt !== undefined)
    faults.push(
      `Expected an initialisation that is built, got ${String(init)}: ${unbuilt} is not.`,
    );
  else if (!isKnownInit(init))
    faults.push(
      `Expected init_lora_weights to be true, false, gaussian, pissa, pissa_niter_N, olora, orthogonal, eva or loftq, got ${JSON.stringify(init)}.`,
    );
  if (eva && !(eva.rho >= 1 && eva.tau >= 0 && eva.tau <= 1))
    faults.push(
      `Expected EVA's rho of at least 1 and tau from 0 to 1, got ${eva.rho} and ${eva.tau}.`,
    );
  return faults;
}

function rangeFaults({ alpha, alphaPattern, dropout, bias }: LoraConfig): string[] {
  const alphas = [alpha, ...Object.values(alphaPattern)];
  const wrong: [boolean, string][] = [
    [!alphas.every(Number.isFinite), `Expected alphas to be numbers, got ${alphas.join(", ")}.`],
    [!(dropout >= 0 && dropout <= 1), `Expected dropout from 0 to 1, got ${dropout}.`],
    [!BIASES.has(bias), `Expected bias to be none, all or lora_only, got ${bias}.`],
  ];
  return wrong.filter(([isWrong]) => isWrong).map(([, fault]) => fault);
}

function conflicts(config: LoraConfig): string[] {
  const { init, layersToTransform, layersPattern = [], targetModules, loraBias, useDora } = config;
  const isRegex = typeof targetModules === "string" && targetModules !== "all-linear";
  const hasParameters = (config.targetParameters ?? []).length > 0;
  const wrong: [boolean, string][] = [
    [
      isRegex && layersToTransform !== undefined,
      "Expected a list of `target_modules` (or all-linear) with `layers_to_transform`, got a regular expression.",
    ],
    [
      layersPattern.length > 0 && layersToTransform === undefined,
      "Expected `layers_to_transform` with `layers_pattern`, got none.",
    ],
    [
      loraBias && typeof init !== "boolean",
      `Expected \`init_lora_weights\` true or false with \`lora_bias\`, got ${JSON.stringify(init)}.`,
    ],
    [loraBias && useDora, "Expected one of `lora_bias` and `use_dora`, got both."],
    [
      hasParameters && (useDora || loraBias || config.dropout > 0),
      "Expected none of `use_dora`, `lora_bias` and `lora_dropout` with `target_parameters`.",
    ],
  ];
  return wrong.filter(([isWrong]) => isWrong).map(([, fault]) => fault);
}

/** @throws LorikeetError `lora-config` listing what is wrong with `config` */
export function checkLoraConfig(config: LoraConfig): void {
  const faults = loraFaults(config);
  if (faults.length === 0) return;
  throw new LorikeetError("lora-config", faults.join("\n"), {
    hint: "docs/adapters.md lists what can be combined.",
  });
}
