import { stringify } from "yaml";
import type { FieldInfo, TrainConfig } from "./train-config.ts";
import { fieldDefault, fieldInfo, TRAIN_KEYS } from "./train-fields.ts";

/** A setting as a command-line flag. */
export interface TrainFlag {
  readonly key: keyof TrainConfig;
  /** As commander reads it: `--learning-rate <value>`, `-m, --model <value>`; a setting that is on by default also has a `--no-` form. */
  readonly flags: string;
  readonly description: string;
  readonly group: FieldInfo["group"];
  readonly isSwitch: boolean;
}

/** Letters that other commands have for the same. */
const LETTERS: Partial<Record<keyof TrainConfig, string>> = { model: "-m", output_dir: "-o" };

/** Every setting as a flag, in the order of the docs. */
export function trainFlags(): TrainFlag[] {
  return TRAIN_KEYS.map((key) => {
    const { description, expects, group } = fieldInfo(key);
    const letter = LETTERS[key] === undefined ? "" : `${LETTERS[key]}, `;
    const name = `${letter}--${key.replaceAll("_", "-")}`;
    const isSwitch = typeof fieldDefault(key) === "boolean" && key !== "init_lora_weights";
    const flags = isSwitch ? name : `${name} <${placeholder(key)}>`;
    const accepted = isChoice(expects) ? ` One of ${expects}.` : "";
    const text = `${description}${accepted} ${defaultNote(key)}`;
    return { key, flags, description: text, group, isSwitch };
  });
}

/** Whether what a setting accepts is a list of words: `auto, on or off`. */
function isChoice(expects: string): boolean {
  return / or /.test(expects) && !/^(true|an?) /.test(expects) && !expects.startsWith("whole");
}

/** Whether the flag may be given several times: each adds to the list. */
export function isList(key: keyof TrainConfig): boolean {
  return key === "sample_prompts" || fieldInfo(key).reading === "list";
}

function placeholder(key: keyof TrainConfig): string {
  const { reading, expects } = fieldInfo(key);
  if (key === "sample_prompts") return "text";
  if (reading === "list") return key.endsWith("data") ? "paths" : "names";
  if (reading === "pattern") return "names";
  if (expects.includes("map")) return "map";
  if (expects.includes("list")) return "list";
  return expects.includes("number") ? "number" : "value";
}

function defaultNote(key: keyof TrainConfig): string {
  const value = fieldDefault(key);
  if (value === undefined) return "(required)";
  if (value === null || isEmpty(value)) return "(default: unset)";
  return `(default: ${written(value)})`;
}

function isEmpty(value: unknown): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}

function written(value: unknown): string {
  return typeof value === "string" ? value : stringify(value).trim();
}

/** docs/config.md: a table of settings for each group. */
export function configPage(): string {
  const groups = new Map<string, string[]>();
  for (const key of TRAIN_KEYS) {
    const { group } = fieldInfo(key);
    groups.set(group, [...(groups.get(group) ?? []), row(key)]);
  }
  const tables = [...groups].map(
    ([group, rows]) =>
      `## ${group}\n\n| setting | default | accepts | meaning |\n| --- | --- | --- | --- |\n${rows.join("\n")}`,
  );
  return `<!-- Written by scripts/generate-docs.js; edit src/host/train-fields.ts instead. -->

# Settings of \`lorikeet train\`

A run is described by a YAML file, by flags, or by both: a flag wins over the file, the file over the default.
Names are PEFT's and transformers' own. A flag is the name with dashes or underscores: \`--learning-rate 1e-4\` or
\`--learning_rate 1e-4\`; a switch is turned off with \`--no-\`: \`--no-report\`. Lists are separated by commas, or
their flag is given several times (\`--sample-prompts\` is one text each time); maps
are written as in YAML: \`--rank-pattern "{q_proj: 4}"\`.

\`\`\`yaml
model: HuggingFaceTB/SmolLM2-135M-Instruct
data: chats.jsonl
validation_split: 0.1
r: 16
lora_alpha: 32
num_train_epochs: 3
learning_rate: 2e-4
output_dir: out
\`\`\`

The settings of a run, defaults included, are saved as \`train-config.yaml\` beside its adapter; the file starts
the same run again.

${tables.join("\n\n")}
`;
}

function row(key: keyof TrainConfig): string {
  const { expects, description } = fieldInfo(key);
  const value = fieldDefault(key);
  const standard =
    value === undefined
      ? "required"
      : value === null || isEmpty(value)
        ? "unset"
        : `\`${written(value)}\``;
  return `| \`${key}\` | ${standard} | ${expects} | ${description} |`;
}
