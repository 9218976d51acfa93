import { parse, stringify, YAMLParseError } from "yaml";
import type { z } from "zod";
import { LorikeetError, nearest } from "../errors.ts";
import { loraFaults, UNBUILT_FIELDS } from "../adapter/lora-faults.ts";
import { IMAGE_TARGETS } from "../train/image-plan.ts";
import { readText } from "./files.ts";
import { loraOfConfig } from "./lora-settings.ts";
import type { TrainConfig } from "./train-config.ts";
import { fieldDefault, fieldInfo, TRAIN_FIELDS, TRAIN_KEYS } from "./train-fields.ts";

/** Values by key before they are checked. */
export type RawConfig = Readonly<Record<string, unknown>>;

/** Names that other tools use for the same setting. */
const ELSEWHERE: Readonly<Record<string, keyof TrainConfig>> = {
  base_model: "model",
  model_name: "model",
  model_name_or_path: "model",
  dataset: "data",
  datasets: "data",
  dataset_name: "data",
  train_data: "data",
  train_file: "data",
  eval_dataset: "eval_data",
  validation_file: "eval_data",
  val_set_size: "validation_split",
  output: "output_dir",
  rank: "r",
  lora_r: "r",
  lora_rank: "r",
  alpha: "lora_alpha",
  dropout: "lora_dropout",
  targets: "target_modules",
  lora_target: "target_modules",
  lora_target_modules: "target_modules",
  max_seq_length: "max_length",
  sequence_len: "max_length",
  cutoff_len: "max_length",
  sample_packing: "packing",
  epochs: "num_train_epochs",
  num_epochs: "num_train_epochs",
  steps: "max_steps",
  iters: "max_steps",
  batch_size: "per_device_train_batch_size",
  micro_batch_size: "per_device_train_batch_size",
  lr: "learning_rate",
  lr_scheduler: "lr_scheduler_type",
  scheduler: "lr_scheduler_type",
  max_norm: "max_grad_norm",
  dtype: "base_dtype",
};

/** Fields of PEFT's LoraConfig that are no setting, and why. */
const GIVEN: Readonly<Record<string, string>> = {
  fan_in_fan_out: "each layer's own layout is known",
  task_type: "`task` says what the model makes",
  base_model_name_or_path: "`model` names it",
  inference_mode: "a run trains",
};

/**
 * The checked settings of a run from `flags`, then `file` (a path of YAML or JSON), then defaults.
 * @throws LorikeetError `config-file` when the file is no YAML map, `config-invalid` with every fault at once
 */
export async function readTrainConfig(from: {
  readonly file?: string | undefined;
  readonly flags?: RawConfig;
}): Promise<TrainConfig> {
  const fromFile = from.file === undefined ? {} : await readConfigFile(from.file);
  return checkTrainConfig({ ...fromFile, ...from.flags });
}

async function readConfigFile(path: string): Promise<RawConfig> {
  const text = await readText(path);
  const expected = `Expected ${path} to hold a YAML map of settings`;
  const hint = 'A line reads "learning_rate: 2e-4"; docs/config.md lists all settings.';
  let value: unknown;
  try {
    value = parse(text) ?? {};
  } catch (cause) {
    const line = cause instanceof YAMLParseError ? cause.linePos?.[0].line : undefined;
    const where = line === undefined ? "" : ` at line ${line}`;
    const reason = cause instanceof Error ? cause.message.split("\n")[0] : String(cause);
    throw new LorikeetError("config-file", `${expected}, but${where}: ${reason ?? ""}`, {
      hint,
      cause,
    });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new LorikeetError("config-file", `${expected}, got ${shown(value)}`, { hint });
  return value as RawConfig;
}

/** What is standard where images are trained, and is something else for text. */
const IMAGE_DEFAULTS: RawConfig = { model: "picturebook-7m", target_modules: IMAGE_TARGETS };

/**
 * `raw` with defaults filled in.
 * @throws LorikeetError `config-invalid` naming each wrong key, value or combination
 */
export function checkTrainConfig(given: RawConfig): TrainConfig {
  const raw = given["task"] === "text-to-image" ? { ...IMAGE_DEFAULTS, ...given } : given;
  const faults = Object.keys(raw)
    .filter((key) => !Object.hasOwn(TRAIN_FIELDS, key))
    .map((key) => (holdsSettings(raw[key]) ? nestedKey(key) : unknownKey(key)));
  const config: Record<string, unknown> = {};
  for (const key of TRAIN_KEYS) {
    const result = (TRAIN_FIELDS[key] as z.ZodType).safeParse(raw[key]);
    if (result.success) config[key] = result.data;
    else faults.push(wrongValue(key, raw[key]));
  }
  const checked = config as unknown as TrainConfig;
  if (faults.length === 0) faults.push(...conflicts(checked));
  if (faults.length === 0) return checked;
  throw new LorikeetError("config-invalid", faults.join("\n"), {
    hint: "docs/config.md and `lorikeet train --help` list every setting with its default.",
  });
}

/** The setting that other tools call `name`. */
export function settingElsewhere(name: string): keyof TrainConfig | undefined {
  return Object.hasOwn(ELSEWHERE, name) ? ELSEWHERE[name] : undefined;
}

function unknownKey(key: string): string {
  const unbuilt = UNBUILT_FIELDS[key];
  if (unbuilt !== undefined) return `Expected no \`${key}\`: ${unbuilt} is not built.`;
  const reason = GIVEN[key];
  if (reason !== undefined) return `Expected no \`${key}\`: ${reason}.`;
  const known = settingElsewhere(key) ?? nearest(key, TRAIN_KEYS, 1)[0];
  const suggestion = known === undefined ? "" : ` Did you mean \`${known}\`?`;
  return `Expected a known setting, got \`${key}\`.${suggestion}`;
}

/** Whether `value` is a map of what belongs to the top level: `lora: {r: 8}`. */
function holdsSettings(value: unknown): boolean {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return Object.keys(value).some((key) => Object.hasOwn(TRAIN_FIELDS, key) || settingElsewhere(key) !== undefined); // prettier-ignore
}

function nestedKey(key: string): string {
  return `Expected a known setting, got \`${key}\`, a map. Settings stand at the top level: leave out \`${key}:\` and write its lines without the indent.`;
}

function wrongValue(key: keyof TrainConfig, value: unknown): string {
  return `Expected \`${key}\` to be ${fieldInfo(key).expects}, got ${shown(value)}.`;
}

function shown(value: unknown): string {
  return value === undefined ? "nothing" : `${JSON.stringify(value)} (${typeName(value)})`;
}

function typeName(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "list" : typeof value === "object" ? "map" : typeof value;
}

function conflicts(config: TrainConfig): string[] {
  const evaluates = config.eval_data.length > 0 || config.validation_split > 0;
  const warmsUp = config.warmup_steps > 0 || config.warmup_ratio > 0;
  const wrong: [boolean, string][] = [
    [
      [...config.data, ...config.eval_data].filter((path) => path === "-").length > 1,
      "Expected `-` (standard input) once in `data` and `eval_data`: a stream is read once.",
    ],
    [
      config.eval_data.length > 0 && config.validation_split > 0,
      "Expected one of `eval_data` and `validation_split`, got both.",
    ],
    [config.resume && config.overwrite, "Expected one of `resume` and `overwrite`, got both."],
    [
      config.warmup_steps > 0 && config.warmup_ratio > 0,
      "Expected one of `warmup_steps` and `warmup_ratio`, got both.",
    ],
    [
      warmsUp && config.lr_scheduler_type === "constant",
      "Expected no warm-up with `lr_scheduler_type: constant`. Did you mean `constant_with_warmup`?",
    ],
    [
      config.early_stopping_patience !== null && !evaluates,
      "Expected `eval_data` or `validation_split` with `early_stopping_patience`, got neither.",
    ],
    [
      config.class_prompt === null && config.class_data_dir !== null,
      "Expected `class_prompt` with `class_data_dir`, got none.",
    ],
    [
      config.load_best_model_at_end && !evaluates,
      "Expected `eval_data` or `validation_split` with `load_best_model_at_end`, got neither.",
    ],
  ];
  const faults = wrong.filter(([isWrong]) => isWrong).map(([, fault]) => fault);
  return [...faults, ...loraConflicts(config), ...ofOtherTask(config)];
}

function loraConflicts(config: TrainConfig): string[] {
  const wrong: [boolean, string][] = [
    [
      config.target_modules.length === 0 && config.target_parameters === null,
      "Expected `target_modules` to name layers, or `target_parameters`, got none.",
    ],
    [
      config.optim === "lorafa" && config.loraplus_lr_ratio !== null,
      "Expected one of `optim: lorafa` and `loraplus_lr_ratio`, got both.",
    ],
    [
      config.full && (config.optim === "lorafa" || config.loraplus_lr_ratio !== null),
      "Expected no `optim: lorafa` or `loraplus_lr_ratio` with `full`: they are for A and B.",
    ],
    [
      config.save_as_lora && config.init_lora_weights === "loftq",
      "Expected no `save_as_lora` with `init_lora_weights: loftq`: its base is quantized.",
    ],
    [
      config.task === "text-classification" && config.packing,
      "Expected no `packing` with `task: text-classification`: each text has a label.",
    ],
  ];
  const faults = wrong.filter(([isWrong]) => isWrong).map(([, fault]) => fault);
  return [...faults, ...loraFaults(loraOfConfig(config))];
}

/** Settings that the run's task has no use for. */
function ofOtherTask(config: TrainConfig): string[] {
  const group = config.task === "text-to-image" ? "Data" : "Images";
  return TRAIN_KEYS.filter(
    (key) => fieldInfo(key).group === group && config[key] !== fieldDefault(key),
  ).map(
    (key) => `Expected no \`${key}\` with \`task: ${config.task}\`, got ${shown(config[key])}.`,
  );
}

/** What a flag's `text` means for the field `key`; checked later, with the rest. */
export function readFlag(key: keyof TrainConfig, text: string): unknown {
  switch (fieldInfo(key).reading) {
    case "text":
      return text;
    case "list":
      return splitList(text);
    case "pattern":
      return text === "all-linear" || /[\\^$*+?()[\]{}|]/.test(text) ? text : splitList(text);
    case "yaml":
      return readYamlValue(text);
  }
}

function splitList(text: string): string[] {
  return text
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}

function readYamlValue(text: string): unknown {
  if (/^\d+(,\s*\d+)+$/.test(text)) return splitList(text).map(Number);
  try {
    return parse(text);
  } catch {
    return text; // the check that follows names the key and what it expects
  }
}

/** `config` as YAML that starts the same run again. How it was started (resume, overwrite) is left out. */
export function writeTrainConfig(config: TrainConfig): string {
  return stringify({ ...config, resume: undefined, overwrite: undefined });
}
