import { basename, dirname, join } from "node:path";
import type { Weight, WeightSource } from "../backends/backend.ts";
import { LorikeetError } from "../errors.ts";
import { faultsError } from "../formats/faults.ts";
import { configFromGguf, type ModelConfig } from "../formats/gguf/config.ts";
import type { RopeFactors } from "../formats/gguf/config-rope.ts";
import { canDequantize, DEQUANTIZABLE, dequantize } from "../formats/gguf/dequantize.ts";
import { getNumber, getString } from "../formats/gguf/metadata.ts";
import { asGgufArchitecture, type GgufTransform, toHfName } from "../formats/gguf/names.ts";
import { type GgufHeader, type GgufTensor, readGguf } from "../formats/gguf/read.ts";
import { type HeadCounts, undoGgufTransform } from "../formats/gguf/transform.ts";
import type { GgmlType } from "../formats/gguf/types.ts";
import { tensorFromBytes } from "../formats/tensor-bytes.ts";
import type { DType } from "../tensor/dtype.ts";
import { sizeOf } from "../tensor/shape.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import { missingWeight } from "./checkpoint-weights.ts";
import { type FileSource, fileSource, isFile } from "./files.ts";

/** A model in GGUF files, as if it were a Hugging Face folder. */
export interface GgufCheckpoint {
  /** Metadata (also the tokenizer's) of the first file, tensors of all. */
  readonly header: GgufHeader;
  /** What config.json would say. */
  readonly config: ModelConfig;
  /** Weights under their Hugging Face names; quantized ones are computed as f32 when they are read. */
  readonly weights: WeightSource;
}

interface Located {
  readonly source: FileSource;
  readonly stored: GgufTensor;
}

interface Mapped extends Located {
  readonly transform: GgufTransform;
}

/** Types whose values are kept as they are stored. */
const PLAIN: Partial<Record<GgmlType, DType>> = { F32: "f32", F16: "f16", BF16: "bf16" };

/**
 * Opens a GGUF file, or the first of a split model (`…-00001-of-00003.gguf`); weights are read when asked for.
 * @throws LorikeetError `file-not-found`, `truncated-file`, `corrupt-gguf`, `unsupported-gguf`, `missing-shard`,
 * `unsupported-architecture`, `unsupported-quantization`
 */
export async function openGguf(path: string): Promise<GgufCheckpoint> {
  const { header, tensors } = await readParts(path);
  const architecture = asGgufArchitecture(getString(header.metadata, "general.architecture"));
  const mapped = new Map<string, Mapped>();
  const unknown: string[] = [];
  const unreadable: string[] = [];
  for (const located of tensors) {
    const { name, type } = located.stored;
    if (!canDequantize(type)) unreadable.push(`tensor "${name}" is ${type}`);
    const hf = toHfName(architecture, name);
    if (hf) mapped.set(hf.name, { ...located, transform: hf.transform });
    else if (!name.startsWith("rope_")) unknown.push(`tensor "${name}"`);
  }
  if (unknown.length > 0)
    throw faultsError("unsupported-architecture", `${path} to hold only tensors of a plain ${architecture} model`, unknown, "This variant (for example a mixture of experts) is not supported."); // prettier-ignore
  if (unreadable.length > 0)
    throw faultsError("unsupported-quantization", `${path} to hold ${DEQUANTIZABLE.join(", ")} tensors`, unreadable, "Use a file of the same model in another quantization, for example Q8_0 or Q4_K_M."); // prettier-ignore
  const config = configFromGguf(header, await readRopeFactors(tensors));
  return { header, config, weights: weightsOf(mapped, config, path) };
}

async function readParts(path: string): Promise<{ header: GgufHeader; tensors: Located[] }> {
  const source = await fileSource(path);
  const first = await readGguf(source);
  const tensors = first.tensors.map((stored) => ({ source, stored }));
  const parts = getNumber(first.metadata, "split.count") ?? 1;
  if (parts <= 1) return { header: first, tensors };
  for (const other of await otherParts(path, parts)) {
    const { tensors: more } = await readGguf(other);
    tensors.push(...more.map((stored) => ({ source: other, stored })));
  }
  const header = { ...first, tensors: tensors.map(({ stored }) => stored) };
  return { header, tensors };
}

async function otherParts(path: string, count: number): Promise<FileSource[]> {
  const digits = (value: number): string => String(value).padStart(5, "0");
  const ending = (part: number): string => `-${digits(part)}-of-${digits(count)}.gguf`;
  if (!path.endsWith(ending(1)))
    throw new LorikeetError(
      "missing-shard",
      `Expected the first of ${count} files (…${ending(1)}), got ${basename(path)}`,
      { hint: "Name the first file of the split model." },
    );
  const stem = basename(path).slice(0, -ending(1).length);
  const paths = Array.from({ length: count - 1 }, (_, i) => join(dirname(path), stem + ending(i + 2))); // prettier-ignore
  const present = await Promise.all(paths.map((part) => isFile(part)));
  const missing = paths.filter((_, i) => !present[i]);
  if (missing.length > 0)
    throw new LorikeetError(
      "missing-shard",
      `Expected ${count} files of ${path}, ${missing.length} are missing: ${missing.join(", ")}`,
      { hint: "Download these files into the same folder." },
    );
  return Promise.all(paths.map((part) => fileSource(part)));
}

async function readRopeFactors(tensors: readonly Located[]): Promise<RopeFactors> {
  const values = async (name: string): Promise<Float32Array | undefined> => {
    const found = tensors.find(({ stored }) => stored.name === name);
    return found && dequantize(found.stored.type, await bytesOf(found), sizeOf(found.stored.shape));
  };
  const frequencies = await values("rope_freqs.weight");
  const long = await values("rope_factors_long.weight");
  const short = await values("rope_factors_short.weight");
  return { ...(frequencies && { frequencies }), ...(long && { long }), ...(short && { short }) };
}

function bytesOf({ source, stored }: Located): Promise<Uint8Array> {
  return source.read(stored.offset, stored.length);
}

function weightsOf(
  mapped: ReadonlyMap<string, Mapped>,
  config: ModelConfig,
  path: string,
): WeightSource {
  const find = (name: string): Mapped => mapped.get(name) ?? missingWeight(name, mapped, path);
  const heads: HeadCounts = {
    heads: (config["num_attention_heads"] ?? config["n_head"]) as number,
    keyValueHeads: (config["num_key_value_heads"] ?? config["n_head"]) as number,
  };
  return {
    names: [...mapped.keys()],
    get: (name) => describe(find(name)),
    async read(name) {
      const located = find(name);
      return undoGgufTransform(await decode(located), located.transform, heads);
    },
  };
}

function describe({ source, stored, transform }: Mapped): Weight {
  const plain = PLAIN[stored.type];
  const dtype = plain === undefined || transform === "add-one" ? "f32" : plain;
  const shape = transform === "transpose" ? [...stored.shape].reverse() : stored.shape;
  if (plain === undefined || transform !== "none")
    return { dtype, shape, bytes: { kind: "computed" } };
  const { offset, length } = stored;
  return { dtype, shape, bytes: { kind: "file", path: source.path, offset, length } };
}

async function decode(located: Located): Promise<Tensor> {
  const { type, shape } = located.stored;
  const bytes = await bytesOf(located);
  const plain = PLAIN[type];
  if (plain !== undefined) return tensorFromBytes(plain, shape, bytes);
  return tensor("f32", shape, dequantize(type, bytes, sizeOf(shape)));
}
