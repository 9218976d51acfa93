import { LorikeetError } from "../../errors.ts";
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import { type ByteSource, truncated } from "../byte-source.ts";
import { faultsError, quoteName } from "../faults.ts";
import { Cursor, NeedsMore, SCALAR_BYTES } from "./cursor.ts";
import {
  GGUF_TYPE_IDS,
  type GgufMetadata,
  type GgufScalar,
  type GgufScalarType,
  type GgufValue,
} from "./metadata.ts";
import { type GgmlType, ggmlBytes, GGML_TYPES, ggmlTypeOf } from "./types.ts";

/** A tensor of a GGUF file: its blocks are `length` bytes from `offset` of the file. */
export interface GgufTensor {
  readonly name: string;
  readonly type: GgmlType;
  /** Outermost axis first, as everywhere in Lorikeet; GGUF stores the reverse. */
  readonly shape: Shape;
  readonly offset: number;
  readonly length: number;
}

/** What the head of a GGUF file says. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
export interface GgufHeader {
  readonly version: number;
  readonly metadata: GgufMetadata;
  readonly tensors: readonly GgufTensor[];
}

/** What follows the metadata of a tensor, before offsets are resolved. */
interface TensorEntry {
  readonly name: string;
  readonly dims: readonly (number | bigint)[];
  readonly typeId: number;
  readonly offset: number | bigint;
}

const MAGIC = "GGUF";
const FIRST_READ = 1 << 20;
const HINT = "The file is damaged or not GGUF. Fetch it again.";
const scalarTypes = new Map<number, GgufScalarType>(
  Object.entries(GGUF_TYPE_IDS).map(([type, id]) => [id, type as GgufScalarType]),
);

/**
 * Reads metadata and tensor table of a GGUF file (version 2 or 3, little-endian); tensor bytes are left unread.
 * @throws LorikeetError `corrupt-gguf` (all faults of the tensor table in one error), `unsupported-gguf`,
 * `unsupported-quantization` (unknown tensor types), `truncated-file`
 */
export async function readGguf(source: ByteSource): Promise<GgufHeader> {
  for (let length = FIRST_READ; ; length *= 4) {
    const bytes = await source.read(0, Math.min(length, source.size));
    const header = parseGguf(bytes, source.size, source.name);
    if (header) return header;
  }
}

/**
 * The header in the first bytes of a file of `fileSize` bytes called `name`; undefined when `bytes` are too few.
 * @throws LorikeetError as `readGguf`
 */
export function parseGguf(
  bytes: Uint8Array,
  fileSize: number = bytes.length,
  name = "the file",
): GgufHeader | undefined {
  const cursor = new Cursor(bytes, fileSize, name);
  if (bytes.subarray(0, 4).some((byte, i) => byte !== MAGIC.charCodeAt(i)))
    throw cursor.corrupt(`it does not start with "${MAGIC}"`);
  if (fileSize < 24) throw truncated(name, 24, fileSize);
  try {
    cursor.take(MAGIC.length);
    const version = cursor.u32();
    if (version !== 2 && version !== 3) throw unsupportedVersion(name, version);
    const tensorCount = cursor.count("tensors", 24);
    const keyCount = cursor.count("metadata keys", 13);
    const metadata = readMetadata(cursor, keyCount);
    const entries = Array.from({ length: tensorCount }, () => readEntry(cursor));
    const alignment = readAlignment(metadata, cursor);
    const start = Math.ceil(cursor.position / alignment) * alignment;
    const tensors = locate(entries, { start, alignment, fileSize, name });
    return { version, metadata, tensors };
  } catch (error) {
    if (error instanceof NeedsMore) return undefined;
    throw error;
  }
}

function unsupportedVersion(name: string, version: number): LorikeetError {
  const swapped = version === 0x02000000 || version === 0x03000000;
  return new LorikeetError(
    "unsupported-gguf",
    `Expected ${name} to be GGUF version 2 or 3, got ${swapped ? "a big-endian file" : `version ${version}`}`,
    { hint: "Convert it with a current llama.cpp on a little-endian machine." },
  );
}

function readMetadata(cursor: Cursor, count: number): GgufMetadata {
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < count; i++) {
    const key = cursor.string();
    if (metadata.has(key)) throw cursor.corrupt(`metadata key ${quoteName(key)} occurs twice`);
    metadata.set(key, readValue(cursor, key));
  }
  return metadata;
}

function readValue(cursor: Cursor, key: string): GgufValue {
  const id = cursor.u32();
  if (id !== 9) {
    const type = scalarTypeOf(cursor, key, id);
    return { type, value: cursor.scalar(type) };
  }
  const elementId = cursor.u32();
  if (elementId === 9) throw cursor.corrupt(`metadata ${quoteName(key)} is an array of arrays`);
  const type = scalarTypeOf(cursor, key, elementId);
  const count = cursor.count(`elements of ${quoteName(key)}`, SCALAR_BYTES[type]);
  const value: GgufScalar[] = [];
  for (let i = 0; i < count; i++) value.push(cursor.scalar(type));
  return { type, value };
}

function scalarTypeOf(cursor: Cursor, key: string, id: number): GgufScalarType {
  const type = scalarTypes.get(id);
  if (type === undefined) throw cursor.corrupt(`metadata ${quoteName(key)} has unknown type ${id}`);
  return type;
}

function readEntry(cursor: Cursor): TensorEntry {
  const name = cursor.string();
  const rank = cursor.u32();
  if (rank > 4) throw cursor.corrupt(`tensor ${quoteName(name)} has ${rank} axes; the limit is 4`);
  const dims = Array.from({ length: rank }, () => cursor.u64());
  return { name, dims: dims.reverse(), typeId: cursor.u32(), offset: cursor.u64() };
}

function readAlignment(metadata: GgufMetadata, cursor: Cursor): number {
  const alignment = metadata.get("general.alignment")?.value ?? 32;
  if (typeof alignment === "number" && alignment > 0 && Math.log2(alignment) % 1 === 0)
    return alignment;
  throw cursor.corrupt(`general.alignment is ${String(alignment)}, no power of two`);
}

interface Layout {
  readonly start: number;
  readonly alignment: number;
  readonly fileSize: number;
  readonly name: string;
}

/** Resolves and checks the tensor table; all faults are reported at once. */
function locate(
  entries: readonly TensorEntry[],
  { start, alignment, fileSize, name }: Layout,
): GgufTensor[] {
  const faults: string[] = [];
  const unknown: string[] = [];
  const tensors = new Map<string, GgufTensor>();
  for (const entry of entries) {
    const label = `tensor ${quoteName(entry.name)}`;
    if (tensors.has(entry.name)) faults.push(`${label} occurs twice`);
    const type = ggmlTypeOf(entry.typeId);
    if (type === undefined) unknown.push(`${label} has type number ${entry.typeId}`);
    const fault = type && faultOf(entry, type, alignment);
    if (fault !== undefined) faults.push(`${label} ${fault}`);
    if (type === undefined || fault !== undefined) continue;
    const shape = entry.dims as number[];
    const length = ggmlBytes(type, sizeOf(shape));
    tensors.set(entry.name, { name: entry.name, type, shape, offset: start + Number(entry.offset), length }); // prettier-ignore
  }
  const end = reportOverlaps([...tensors.values()], faults);
  if (faults.length > 0)
    throw faultsError("corrupt-gguf", `${name} to be a GGUF file`, [...faults, ...unknown], HINT);
  if (unknown.length > 0)
    throw faultsError(
      "unsupported-quantization",
      `${name} to hold tensors of known types`,
      unknown,
      "Quantize the model to another type, for example Q8_0.",
    );
  if (end > fileSize) throw truncated(name, end, fileSize);
  return [...tensors.values()];
}

function faultOf(
  { dims, offset }: TensorEntry,
  type: GgmlType,
  alignment: number,
): string | undefined {
  const size = sizeOf(dims.map(Number));
  if (!Number.isSafeInteger(size * 8)) return `has the impossible shape [${dims.join(", ")}]`;
  const row = Number(dims.at(-1) ?? 1);
  const { block } = GGML_TYPES[type];
  if (row % block !== 0) return `has rows of ${row} values, ${type} takes blocks of ${block}`;
  if (typeof offset === "bigint") return `starts at the impossible offset ${offset}`;
  if (offset % alignment !== 0) return `starts at ${offset}, no multiple of ${alignment}`;
  return undefined;
}

/** Reports tensors that overlap; gives the end of the last. */
function reportOverlaps(tensors: GgufTensor[], faults: string[]): number {
  let end = 0;
  let previous = "";
  for (const { name, offset, length } of tensors.sort(
    (a, b) => a.offset - b.offset || a.length - b.length,
  )) {
    if (offset < end)
      faults.push(`tensor ${quoteName(name)} overlaps tensor ${quoteName(previous)}`);
    end = Math.max(end, offset + length);
    previous = name;
  }
  return end;
}
