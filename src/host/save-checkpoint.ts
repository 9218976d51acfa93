import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { configJson } from "../formats/config-json.ts";
import { encodeSafetensors, type TensorSpec } from "../formats/safetensors-write.ts";
import { formatShardIndex, planShards } from "../formats/safetensors-index.ts";
import { BYTES } from "../tensor/dtype.ts";
import { sizeOf } from "../tensor/shape.ts";
import { isFile, readText, writeAtomically, writeJson } from "./files.ts";
import type { Checkpoint } from "./open-checkpoint.ts";
import { writeFolder } from "./output-folder.ts";

/** How a model is written. */
export interface SaveOptions {
  /** Largest file of weights in bytes; 5 GB by default, as transformers has it. */
  readonly maxShardBytes?: number;
  readonly overwrite?: boolean;
  /** Folder whose tokenizer files win over the checkpoint's: that of an adapter with new tokens. */
  readonly tokenizerFrom?: string;
  /** Called before each weight. */
  readonly onProgress?: (done: number, total: number, name: string) => void;
}

/** What was written. */
export interface SavedModel {
  readonly path: string;
  readonly files: readonly string[];
  /** Bytes of the weights. */
  readonly bytes: number;
}

/** Files beside the weights that belong to a model's tokenizer. */
const TOKENIZER_FILES = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "vocab.txt",
  "merges.txt",
  "tokenizer.model",
  "chat_template.jinja",
  "chat_template.json",
];
const MODEL_FILES = ["generation_config.json", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE"];

/**
 * Writes `checkpoint` as a Hugging Face folder: weights (one tensor in memory at a time), index when there are several
 * files, config and tokenizer.
 * @throws LorikeetError `output-exists`, `disk-full`, `read-only`; nothing is left behind then
 */
export async function saveCheckpoint(
  checkpoint: Checkpoint,
  folder: string,
  options: SaveOptions = {},
): Promise<SavedModel> {
  return writeFolder(folder, options, async (temporary) => {
    const weights = await writeWeights(checkpoint, temporary, options);
    await writeConfig(checkpoint, temporary);
    const others = await writeCompanions(checkpoint, temporary, options.tokenizerFrom);
    return { path: folder, files: [...weights.files, "config.json", ...others], bytes: weights.bytes }; // prettier-ignore
  });
}

/** Writes config.json into `folder`; whole floats of the checkpoint's own stay floats. */
export async function writeConfig(
  { path, config }: Pick<Checkpoint, "path" | "config">,
  folder: string,
): Promise<void> {
  const original = join(path, "config.json");
  const text = (await isFile(original)) ? await readText(original) : undefined;
  await writeAtomically(join(folder, "config.json"), configJson(config, text));
}

/** Writes `weights` into `folder` as `<stem>.safetensors`, or several files and their index. */
export async function writeWeights(
  { weights }: Pick<Checkpoint, "weights">,
  folder: string,
  { maxShardBytes = 5e9, onProgress }: SaveOptions,
  stem = "model",
): Promise<{ files: string[]; bytes: number }> {
  const specs = weights.names.map((name): TensorSpec => {
    const { dtype, shape } = weights.get(name);
    return { name, dtype, shape };
  });
  const shards = planShards(specs, maxShardBytes, stem);
  const map = new Map<string, string>();
  let done = 0;
  for (const { file, tensors } of shards) {
    for (const { name } of tensors) map.set(name, file);
    const read = (name: string): ReturnType<typeof weights.read> => {
      onProgress?.(done++, specs.length, name);
      return weights.read(name);
    };
    await writeAtomically(join(folder, file), encodeSafetensors(tensors, read, { format: "pt" }));
  }
  const bytes = specs.reduce((sum, { dtype, shape }) => sum + sizeOf(shape) * BYTES[dtype], 0);
  const files = shards.map(({ file }) => file);
  if (files.length === 1) return { files, bytes };
  const index = `${stem}.safetensors.index.json`;
  await writeAtomically(join(folder, index), formatShardIndex(map, bytes));
  return { files: [...files, index], bytes };
}

/** Copies, or writes from what was read of a GGUF file, the files beside the weights. @returns their names */
export async function writeCompanions(
  checkpoint: Checkpoint,
  folder: string,
  tokenizerFrom: string | undefined,
): Promise<string[]> {
  const written: string[] = [];
  const hasOwnTokenizer = tokenizerFrom !== undefined && (await isFile(join(tokenizerFrom, "tokenizer.json"))); // prettier-ignore
  for (const file of [...TOKENIZER_FILES, ...MODEL_FILES]) {
    const from = hasOwnTokenizer && TOKENIZER_FILES.includes(file) ? tokenizerFrom : checkpoint.path; // prettier-ignore
    if (!(await isFile(join(from, file)))) continue;
    await copyFile(join(from, file), join(folder, file));
    written.push(file);
  }
  const parsed: [string, unknown][] = [
    ["tokenizer.json", checkpoint.tokenizer],
    ["tokenizer_config.json", checkpoint.tokenizerConfig],
    ["generation_config.json", checkpoint.generationConfig],
  ];
  for (const [file, value] of parsed) {
    if (value === undefined || written.includes(file)) continue;
    await writeJson(join(folder, file), value);
    written.push(file);
  }
  return written;
}
