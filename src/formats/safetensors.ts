import { LorikeetError } from "../errors.ts";
import { BYTES, type DType } from "../tensor/dtype.ts";
import { formatShape, type Shape, sizeOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type ByteSource, memorySource, truncated } from "./byte-source.ts";
import { faultsError, quoteName } from "./faults.ts";
import { duplicateKeys } from "./strict-json.ts";
import { tensorFromBytes } from "./tensor-bytes.ts";

/** A tensor stored in a file: its bytes are `length` bytes from `offset` of the file. */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly offset: number;
  readonly length: number;
}

/** What the head of a safetensors file says. https://github.com/huggingface/safetensors#format */
export interface SafetensorsHeader {
  /** Absent when the file has no `__metadata__`, or null there. */
  readonly metadata: Readonly<Record<string, string>> | undefined;
  /** In the order of their bytes. */
  readonly tensors: readonly StoredTensor[];
}

/** Spelling of dtypes in safetensors headers; those left out are not supported. */
export const SAFETENSORS_DTYPES: ReadonlyMap<string, DType> = new Map([
  ["F64", "f64"],
  ["F32", "f32"],
  ["F16", "f16"],
  ["BF16", "bf16"],
  ["I64", "i64"],
  ["I32", "i32"],
  ["I16", "i16"],
  ["I8", "i8"],
  ["U8", "u8"],
  ["BOOL", "bool"],
  ["F8_E4M3", "f8_e4m3"],
  ["F8_E5M2", "f8_e5m2"],
]);

/** The Rust and Python readers refuse longer headers too. */
const LONGEST_HEADER = 100_000_000;
const HINT = "The file is damaged or not safetensors. Fetch it again.";

/**
 * Reads the head of a safetensors file; tensor bytes are left unread.
 * @throws LorikeetError `truncated-file`, `corrupt-safetensors`, `unsupported-dtype` (all faults in one error)
 */
export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsHeader> {
  if (source.size < 8) throw truncated(source.name, 8, source.size);
  const prefix = await source.read(0, 8);
  const bits = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  const length = Number(bits);
  if (length > LONGEST_HEADER)
    throw faultsError(
      "corrupt-safetensors",
      `${source.name} to be a safetensors file`,
      [`its header would have ${bits} bytes; the limit is ${LONGEST_HEADER}`],
      HINT,
    );
  if (8 + length > source.size) throw truncated(source.name, 8 + length, source.size);
  return parseSafetensorsHeader(await source.read(8, length), source.size, source.name);
}

/** The header in `json`, the bytes after the length field, of a file of `fileSize` bytes called `name`. */
function parseSafetensorsHeader(
  json: Uint8Array,
  fileSize: number,
  name: string,
): SafetensorsHeader {
  const expected = `${name} to be a safetensors file`;
  let text: string;
  let header: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
    header = JSON.parse(text);
  } catch (cause) {
    throw new LorikeetError("corrupt-safetensors", `Expected ${expected}, its header is not JSON`, {
      hint: HINT,
      cause,
    });
  }
  if (!isObject(header))
    throw faultsError("corrupt-safetensors", expected, ["its header is not a JSON object"], HINT);
  const faults = duplicateKeys(text).map((key) => `key ${quoteName(key)} occurs twice`);
  const unknownDtypes: string[] = [];
  const tensors: StoredTensor[] = [];
  const start = 8 + json.length;
  for (const [key, value] of Object.entries(header)) {
    if (key === "__metadata__") continue;
    const stored = parseEntry(key, value, start, { faults, unknownDtypes });
    if (stored) tensors.push(stored);
  }
  const metadata = parseMetadata(header["__metadata__"], faults);
  tensors.sort((a, b) => a.offset - b.offset || a.length - b.length);
  const end = checkCoverage(tensors, start, faults, faults.length + unknownDtypes.length > 0);
  if (end < fileSize && faults.length + unknownDtypes.length === 0)
    faults.push(`${fileSize - end} bytes follow the last tensor`);
  if (faults.length > 0)
    throw faultsError("corrupt-safetensors", expected, [...faults, ...unknownDtypes], HINT);
  if (unknownDtypes.length > 0)
    throw faultsError(
      "unsupported-dtype",
      `${name} to hold ${[...SAFETENSORS_DTYPES.keys()].join(", ")} tensors`,
      unknownDtypes,
      "Convert the checkpoint to one of these dtypes.",
    );
  if (end > fileSize) throw truncated(name, end, fileSize);
  return { metadata, tensors };
}

interface Findings {
  readonly faults: string[];
  readonly unknownDtypes: string[];
}

function parseEntry(
  name: string,
  value: unknown,
  start: number,
  { faults, unknownDtypes }: Findings,
): StoredTensor | undefined {
  const label = `tensor ${quoteName(name)}`;
  if (!isObject(value)) {
    faults.push(`${label} is not described by an object`);
    return undefined;
  }
  const { dtype: spelling, shape, data_offsets: offsets } = value;
  const before = faults.length;
  if (!Array.isArray(shape) || !shape.every(isCount)) faults.push(`${label} has no valid shape`);
  if (!isRange(offsets)) faults.push(`${label} has no valid data_offsets`);
  if (typeof spelling !== "string") faults.push(`${label} has no dtype`);
  if (faults.length > before) return undefined;
  const dtype = SAFETENSORS_DTYPES.get(spelling as string);
  if (dtype === undefined) {
    unknownDtypes.push(`${label} has dtype ${quoteName(spelling as string)}`);
    return undefined;
  }
  const [from, to] = offsets as [number, number];
  const bytes = sizeOf(shape as number[]) * BYTES[dtype];
  if (bytes !== to - from) {
    faults.push(
      `${label} ${dtype} ${formatShape(shape as number[])} needs ${bytes} bytes, its data_offsets give ${to - from}`,
    );
    return undefined;
  }
  return { name, dtype, shape: shape as number[], offset: start + from, length: to - from };
}

/** Reports overlaps and gaps between `tensors` (sorted by offset); gives the end of the last. */
function checkCoverage(
  tensors: readonly StoredTensor[],
  start: number,
  faults: string[],
  skipsGaps: boolean,
): number {
  let end = start;
  let previous = "the header";
  for (const { name, offset, length } of tensors) {
    const label = `tensor ${quoteName(name)}`;
    if (offset < end) faults.push(`${label} overlaps ${previous} by ${end - offset} bytes`);
    // a tensor that was dropped for another fault leaves a gap that is no fault of its own
    else if (offset > end && !skipsGaps)
      faults.push(`${offset - end} unused bytes lie between ${previous} and ${label}`);
    end = Math.max(end, offset + length);
    previous = label;
  }
  return end;
}

function parseMetadata(value: unknown, faults: string[]): Record<string, string> | undefined {
  if (value === undefined || value === null) return undefined; // mlx writes null where it has none
  if (isObject(value) && Object.values(value).every((entry) => typeof entry === "string"))
    return value as Record<string, string>;
  faults.push("__metadata__ is not an object of strings");
  return undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isRange(value: unknown): value is [number, number] {
  if (!Array.isArray(value) || value.length !== 2) return false;
  const [from, to] = value as unknown[];
  return isCount(from) && isCount(to) && from <= to;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** A safetensors file in memory: metadata, and tensors by name that are views of `bytes` where alignment allows. */
export interface Safetensors {
  readonly metadata: Readonly<Record<string, string>> | undefined;
  readonly tensors: ReadonlyMap<string, Tensor>;
}

/**
 * Decodes a whole safetensors file called `name`.
 * @throws LorikeetError as `readSafetensorsHeader`
 */
export async function decodeSafetensors(bytes: Uint8Array, name?: string): Promise<Safetensors> {
  const { metadata, tensors } = await readSafetensorsHeader(memorySource(bytes, name));
  const entries = tensors.map(({ name: key, dtype, shape, offset, length }) => {
    return [key, tensorFromBytes(dtype, shape, bytes.subarray(offset, offset + length))] as const;
  });
  return { metadata, tensors: new Map(entries) };
}
