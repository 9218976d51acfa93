import { LorikeetError } from "../errors.ts";
import { faultsError } from "../formats/faults.ts";
import { initOf } from "./lora-config.ts";
import { isKnownInit, UNBUILT_FIELDS, unbuiltInit } from "./lora-faults.ts";
import type { AdapterJson } from "./peft-config.ts";

interface Rule {
  readonly expects: string;
  readonly holds: (value: unknown) => boolean;
}

const isText = (value: unknown): boolean => typeof value === "string";
const isCount = (value: unknown): boolean => Number.isInteger(value) && Number(value) >= 0;
const isRank = (value: unknown): boolean => isCount(value) && value !== 0;
const isList = (value: unknown, holds: Rule["holds"]): boolean => Array.isArray(value) && value.every(holds); // prettier-ignore
const isMap = (value: unknown, holds: Rule["holds"]): boolean =>
  typeof value === "object" && !Array.isArray(value) && Object.values(value!).every(holds);

const flag: Rule = { expects: "true or false", holds: (value) => typeof value === "boolean" };
const texts: Rule = { expects: "a list of texts", holds: (value) => isList(value, isText) };
const textOrTexts: Rule = { expects: "a text or a list of texts", holds: (value) => isText(value) || isList(value, isText) }; // prettier-ignore

/** What the fields that are read hold when they are not null, as in PEFT 0.21. */
const RULES: Readonly<Record<string, Rule>> = {
  r: { expects: "a positive whole number", holds: isRank },
  lora_alpha: { expects: "a number", holds: Number.isFinite },
  lora_dropout: {
    expects: "a number from 0 to 1",
    holds: (value) => typeof value === "number" && value >= 0 && value <= 1,
  },
  target_modules: textOrTexts,
  exclude_modules: textOrTexts,
  layers_to_transform: {
    expects: "a layer number or a list of them",
    holds: (value) => isCount(value) || isList(value, isCount),
  },
  layers_pattern: textOrTexts,
  rank_pattern: {
    expects: "a map to positive whole numbers",
    holds: (value) => isMap(value, isRank),
  },
  alpha_pattern: {
    expects: "a map to numbers",
    holds: (value) => isMap(value, Number.isFinite),
  },
  bias: {
    expects: "none, all or lora_only",
    holds: (value) => ["none", "all", "lora_only"].includes(value as string),
  },
  lora_bias: flag,
  fan_in_fan_out: flag,
  use_rslora: flag,
  use_dora: flag,
  modules_to_save: texts,
  trainable_token_indices: {
    expects: "a list of token ids, or a map to such lists",
    holds: (value) =>
      isList(value, isCount) || isMap(value, (ids: unknown) => isList(ids, isCount)),
  },
  target_parameters: texts,
  ensure_weight_tying: flag,
};

/**
 * Refuses what cannot be read as a LoRA adapter's configuration. `known` are the fields that PEFT's LoraConfig has;
 * any other that switches something on (`use_…`, `…_config`) is a variant, too.
 * @throws LorikeetError `unsupported-lora-variant` naming each variant that is set and not built, `adapter-config`
 * listing every field of another type or range
 */
export function checkPeftConfig(json: AdapterJson, known: ReadonlySet<string>): void {
  const variants = Object.entries(json)
    .filter(([field, value]) => isVariant(field, value, known))
    .map(([field]) => `${field} (${UNBUILT_FIELDS[field] ?? "not known"})`)
    .concat(variantInit(json["init_lora_weights"]));
  if (variants.length > 0)
    throw new LorikeetError(
      "unsupported-lora-variant",
      `Expected plain LoRA or DoRA, got an adapter that sets ${variants.join(", ")}`,
      { hint: "Merge it with PEFT into the base model and use the merged model." },
    );
  const faults = Object.entries(RULES)
    .filter(([field, { holds }]) => (json[field] ?? null) !== null && !holds(json[field]))
    .map(
      ([field, { expects }]) => `${field}: expected ${expects}, got ${JSON.stringify(json[field])}`,
    );
  if (faults.length > 0)
    throw faultsError(
      "adapter-config",
      "the values of PEFT's LoraConfig in adapter_config.json",
      faults,
      "Compare it with what PEFT wrote.",
    );
}

function isVariant(field: string, value: unknown, known: ReadonlySet<string>): boolean {
  if (!value) return false;
  if (field in UNBUILT_FIELDS) return true;
  if (known.has(field) || field === "runtime_config") return false; // how PEFT loads, not what it computes
  const isEmpty = typeof value === "object" && Object.keys(value).length === 0;
  return /^use_|_config$/.test(field) && !isEmpty;
}

function variantInit(init: unknown): string[] {
  if ((init ?? null) === null || isKnownInit(initOf(init))) return [];
  return [`init_lora_weights: ${unbuiltInit(init) ?? `${JSON.stringify(init)} (not known)`}`];
}
