import { join } from "node:path";
import { LorikeetError } from "../errors.ts";
import { convert } from "../tensor/convert.ts";
import { BYTES, type DType } from "../tensor/dtype.ts";
import { sizeOf } from "../tensor/shape.ts";
import { readText, writeAtomically, writeJson } from "./files.ts";
import { type Checkpoint, readJson } from "./open-checkpoint.ts";
import { writeFolder } from "./output-folder.ts";
import {
  type SavedModel,
  type SaveOptions,
  writeCompanions,
  writeConfig,
} from "./save-checkpoint.ts";

/** How a model is written as ONNX. */
export interface OnnxSaveOptions extends Pick<
  SaveOptions,
  "overwrite" | "onProgress" | "tokenizerFrom"
> {
  /** Element type of the stored weights; f32 by default. The model computes in f32 either way. */
  readonly dtype?: "f32" | "f16";
  /** Largest file; weights that do not fit beside the graph go into files of their own. 1.9 GB by default. */
  readonly maxFileBytes?: number;
}

/** A weight of an ONNX model. */
export interface OnnxWeight {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Where a weight is when it is not in the model's own file. */
export interface OnnxPlace {
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

/** A model whose weights are written apart. */
export interface OnnxParts {
  readonly weights: readonly OnnxWeight[];
  /** Tokens that end an answer. */
  readonly stopIds: readonly number[];
  /** The model's file: with all weights in it, read one at a time, or with their places. */
  readonly encode: (
    read: (name: string) => Promise<Uint8Array>,
    places: ReadonlyMap<string, OnnxPlace> | undefined,
  ) => AsyncIterable<Uint8Array>;
}

/** What Transformers.js calls a file of weights of each type, and that type. */
const FILES = {
  f32: { file: "model.onnx", dtype: "fp32" },
  f16: { file: "model_fp16.onnx", dtype: "fp16" },
} as const;
/** Above this, protobuf readers refuse a file. */
const MAX_FILE_BYTES = 1.9e9;
/** Where ONNX Runtime can map a weight into memory. */
const ALIGNMENT = 4096;

/**
 * Writes `checkpoint` as Transformers.js reads it: `onnx/model.onnx` (weights beyond `maxFileBytes` in
 * `model.onnx_data`, `model.onnx_data_1` …), config and tokenizer. One weight is in memory at a time.
 * @throws LorikeetError `output-exists`, `disk-full`, `read-only`, `not-finite`; nothing is left behind then
 */
export async function saveOnnx(
  checkpoint: Checkpoint,
  folder: string,
  parts: OnnxParts,
  options: OnnxSaveOptions = {},
): Promise<SavedModel> {
  const { file, dtype } = FILES[options.dtype ?? "f32"];
  const bytes = parts.weights.reduce((sum, weight) => sum + bytesOf(weight), 0);
  const maxBytes = options.maxFileBytes ?? MAX_FILE_BYTES;
  return writeFolder(folder, options, async (temporary) => {
    const read = reader(checkpoint, parts, options);
    const chunks = bytes <= maxBytes ? [] : planChunks(parts.weights, file, maxBytes);
    const places = new Map(chunks.flatMap((chunk) => [...chunk.places]));
    for (const chunk of chunks)
      await writeAtomically(join(temporary, "onnx", chunk.file), chunkBytes(chunk, read));
    const model = parts.encode(read, chunks.length > 0 ? places : undefined);
    await writeAtomically(join(temporary, "onnx", file), model);
    const forLibrary = {
      ...(checkpoint.config["transformers.js_config"] as object | undefined),
      dtype,
      ...(chunks.length > 0 && { use_external_data_format: { [file]: chunks.length } }),
    };
    const config = { ...checkpoint.config, "transformers.js_config": forLibrary };
    await writeConfig({ path: checkpoint.path, config }, temporary);
    const written = [file, ...chunks.map((chunk) => chunk.file)].map((name) => `onnx/${name}`);
    const others = await writeCompanions(checkpoint, temporary, options.tokenizerFrom);
    const chat = await writeChatFiles(checkpoint, temporary, parts.stopIds);
    return { path: folder, files: [...new Set([...written, "config.json", ...others, ...chat])], bytes }; // prettier-ignore
  });
}

/**
 * What Transformers.js looks for in other places than transformers: the chat template in tokenizer_config.json alone, and
 * every token that ends an answer in generation_config.json. @returns the files' names
 */
async function writeChatFiles(
  { config, chatTemplate }: Checkpoint,
  folder: string,
  stopIds: readonly number[],
): Promise<string[]> {
  const rewrite = async (name: string, change: (fields: Fields) => Fields): Promise<string> => {
    const path = join(folder, name);
    const fields = change((await readJson(path)) ?? {});
    await writeJson(path, fields);
    return name;
  };
  const ids = ["bos_token_id", "pad_token_id"].filter((key) => config[key] !== undefined);
  const own = Object.fromEntries(ids.map((key) => [key, config[key]]));
  const ends = stopIds.length > 0 ? { eos_token_id: stopIds } : {};
  const written = [await rewrite("generation_config.json", (fields) => ({ ...own, ...fields, ...ends }))]; // prettier-ignore
  const template = await readText(join(folder, "chat_template.jinja")).catch(() => chatTemplate);
  if (template === undefined) return written;
  return [...written, await rewrite("tokenizer_config.json", (fields) => ({ ...fields, chat_template: template }))]; // prettier-ignore
}

type Fields = Readonly<Record<string, unknown>>;

function reader(
  { weights }: Checkpoint,
  parts: OnnxParts,
  { onProgress }: OnnxSaveOptions,
): (name: string) => Promise<Uint8Array> {
  const types = new Map(parts.weights.map(({ name, dtype }) => [name, dtype]));
  let done = 0;
  return async (name) => {
    onProgress?.(done++, types.size, name);
    const stored = await weights.read(name);
    const { dtype, data } = convert(stored, types.get(name)!);
    if (dtype === "f16" && stored.dtype !== "f16") checkRange(name, data as Uint16Array);
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  };
}

/** @throws LorikeetError `not-finite` when a half float is infinite or NaN: all bits of its exponent are set */
function checkRange(name: string, halves: Uint16Array): void {
  if (!halves.some((bits) => (bits & 0x7c00) === 0x7c00)) return;
  throw new LorikeetError(
    "not-finite",
    `Expected finite weights, got infinity or NaN in "${name}" as f16`,
    { hint: "f16 ends at 65504: write the model with --dtype f32." },
  );
}

interface Chunk {
  readonly file: string;
  readonly places: Map<string, OnnxPlace>;
}

function planChunks(weights: readonly OnnxWeight[], model: string, maxBytes: number): Chunk[] {
  const chunks: Chunk[] = [];
  let end = Infinity;
  for (const weight of weights) {
    const length = bytesOf(weight);
    let offset = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
    if (offset + length > maxBytes) {
      const file = `${model}_data${chunks.length === 0 ? "" : `_${chunks.length}`}`;
      chunks.push({ file, places: new Map() });
      offset = 0;
    }
    const { file, places } = chunks.at(-1)!;
    places.set(weight.name, { location: file, offset, length });
    end = offset + length;
  }
  return chunks;
}

async function* chunkBytes(
  { places }: Chunk,
  read: (name: string) => Promise<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  let at = 0;
  for (const [name, { offset, length }] of places) {
    if (offset > at) yield new Uint8Array(offset - at);
    yield await read(name);
    at = offset + length;
  }
}

function bytesOf({ shape, dtype }: OnnxWeight): number {
  return sizeOf(shape) * BYTES[dtype];
}
