import { cp, readdir, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { WeightSource } from "../backends/backend.ts";
import { pipelineIndex, singleFileConfigs } from "../diffusion/pipeline-index.ts";
import { isFile, makeFolder, writeJson } from "./files.ts";
import { readJson } from "./open-checkpoint.ts";
import { writeFolder } from "./output-folder.ts";
import type { PipelineCheckpoint } from "./open-pipeline.ts";
import { type SavedModel, type SaveOptions, writeWeights } from "./save-checkpoint.ts";

/** diffusers begins a new file at 10 GB. */
const SHARD_BYTES = 10e9;
const WEIGHTS = /\.(safetensors|bin|ckpt|msgpack|onnx|pb)$|\.index(\.\w+)?\.json$/;

/** What transformers needs to know of a tokenizer that is vocab.json and merges.txt alone. */
const CLIP_TOKENIZER = {
  tokenizer_class: "CLIPTokenizer",
  bos_token: "<|startoftext|>",
  eos_token: "<|endoftext|>",
  unk_token: "<|endoftext|>",
  pad_token: "<|endoftext|>",
};

/** A model of a pipeline: its folder, and what it is written from. */
interface Part {
  readonly folder: string;
  readonly weights: WeightSource;
  readonly isChanged: boolean;
}

/**
 * Writes `checkpoint` as a folder in diffusers layout. What is not in `changed` is copied from the folder that it was
 * opened from, byte by byte; from a single file every part is written.
 * @throws LorikeetError `output-exists`, `disk-full`, `read-only`; nothing is left behind then
 */
export async function savePipeline(
  checkpoint: PipelineCheckpoint,
  folder: string,
  changed: ReadonlySet<string>,
  options: SaveOptions = {},
): Promise<SavedModel> {
  const source = (await stat(checkpoint.path)).isDirectory() ? checkpoint.path : undefined;
  return writeFolder(folder, options, async (temporary) => {
    const files: string[] = [];
    let bytes = 0;
    const parts = partsOf(checkpoint.weights, changed);
    if (source !== undefined) await copyOthers(source, temporary, parts);
    else await writeOthers(checkpoint, temporary);
    for (const part of parts) {
      if (source !== undefined && !part.isChanged) continue;
      const stem = part.folder.startsWith("text_encoder") ? "model" : "diffusion_pytorch_model";
      const saved = await writeWeights(part, join(temporary, part.folder), { maxShardBytes: SHARD_BYTES, ...options }, stem); // prettier-ignore
      files.push(...saved.files.map((file) => `${part.folder}/${file}`));
      bytes += saved.bytes;
    }
    return { path: folder, files, bytes };
  });
}

function partsOf(weights: WeightSource, changed: ReadonlySet<string>): Part[] {
  const folders = [...new Set(weights.names.map((name) => name.slice(0, name.indexOf("."))))];
  return folders.map((folder) => {
    const prefix = `${folder}.`;
    const names = weights.names.filter((name) => name.startsWith(prefix));
    const own: WeightSource = {
      names: names.map((name) => name.slice(prefix.length)),
      get: (name) => weights.get(prefix + name),
      read: (name) => weights.read(prefix + name),
    };
    return { folder, weights: own, isChanged: names.some((name) => changed.has(name)) };
  });
}

/** Copies all of `source` but the weights of models that change. */
async function copyOthers(source: string, target: string, parts: readonly Part[]): Promise<void> {
  const changing = new Set(parts.filter(({ isChanged }) => isChanged).map(({ folder }) => folder));
  for (const entry of await readdir(source, { withFileTypes: true })) {
    // a folder of a pipeline may lie beside files of all weights in one
    if (!entry.isDirectory() && WEIGHTS.test(entry.name)) continue;
    if (entry.name.startsWith(".")) continue;
    await cp(join(source, entry.name), join(target, entry.name), {
      recursive: true,
      dereference: true, // caches of the hub are links
      filter: (path) => !(changing.has(entry.name) && WEIGHTS.test(path)),
    });
  }
}

/** Configurations, scheduler, tokenizers and index of a checkpoint that was one file. */
async function writeOthers(checkpoint: PipelineCheckpoint, folder: string): Promise<void> {
  const { configs, schedulerJson, tokenizers } = checkpoint;
  for (const [part, config] of Object.entries(singleFileConfigs(configs)))
    await writeJson(join(folder, part, "config.json"), config);
  await writeJson(join(folder, "scheduler", "scheduler_config.json"), schedulerJson);
  const source = join(dirname(checkpoint.path), "tokenizer");
  for (const [i, { length }] of tokenizers.entries()) {
    const own = join(folder, i === 0 ? "tokenizer" : `tokenizer_${i + 1}`);
    await makeFolder(own);
    for (const file of await readdir(source))
      if (await isFile(join(source, file))) await cp(join(source, file), join(own, file));
    const config = await readJson(join(source, "tokenizer_config.json"));
    if (config && i === 0) continue;
    // the second encoder of SDXL fills captions up with token 0
    const padding = i === 0 ? {} : { pad_token: "!" };
    await rm(join(own, "special_tokens_map.json"), { force: true });
    await writeJson(join(own, "tokenizer_config.json"), { ...CLIP_TOKENIZER, model_max_length: length, ...config, ...padding }); // prettier-ignore
  }
  await writeJson(join(folder, "model_index.json"), pipelineIndex(configs, schedulerJson));
}
