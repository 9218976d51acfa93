import { LorikeetError } from "../../errors.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import { formatShape, sameShape, type Shape, sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { bytesOf } from "../tensor-bytes.ts";
import {
  getNumber,
  GGUF_TYPE_IDS,
  type GgufMetadata,
  type GgufScalar,
  type GgufScalarType,
} from "./metadata.ts";
import { quantize, type WritableType } from "./quantize.ts";
import { ggmlBytes, GGML_TYPES } from "./types.ts";

/** A tensor to be written: name as in the file, shape outermost axis first. */
export interface GgufTensorSpec {
  readonly name: string;
  readonly type: WritableType;
  readonly shape: Shape;
}

/** ggml's own limit, in bytes with the closing zero. */
const LONGEST_NAME = 63;

/**
 * The type llama.cpp's converter gives a tensor when `wanted` is asked for: vectors stay F32, and rows that are no
 * whole number of blocks become F16.
 */
export function storedType(wanted: WritableType, shape: Shape): WritableType {
  if (shape.length <= 1) return "F32";
  return shape.at(-1)! % GGML_TYPES[wanted].block === 0 ? wanted : "F16";
}

/**
 * The bytes of a GGUF 3 file in pieces: the head, then each tensor when it is needed, converted to its type, so that
 * only one is in memory. Padded to `general.alignment` (32 when `metadata` does not give it).
 * @throws LorikeetError `duplicate-tensor`; `gguf-name` for a name over 63 bytes; `shape` for rows that are no whole
 * blocks; `tensor-mismatch` when `read` gives another shape than the spec; `not-finite` for values beyond f16
 */
export async function* encodeGguf(
  metadata: GgufMetadata,
  specs: readonly GgufTensorSpec[],
  read: (name: string) => Tensor | Promise<Tensor>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const alignment = getNumber(metadata, "general.alignment") ?? 32;
  yield encodeHead(metadata, specs, alignment);
  for (const { name, type, shape } of specs) {
    const tensor = await read(name);
    if (!sameShape(tensor.shape, shape))
      throw new LorikeetError(
        "tensor-mismatch",
        `Expected "${name}" to be ${formatShape(shape)}, got ${formatShape(tensor.shape)}`,
      );
    const blocks = encodeTensor(name, tensor, type);
    yield blocks;
    yield new Uint8Array(padding(blocks.length, alignment));
  }
}

function encodeTensor(name: string, tensor: Tensor, type: WritableType): Uint8Array {
  if (type.toLowerCase() === tensor.dtype) return bytesOf(tensor);
  const values = toFloat32(tensor);
  checkRange(name, type, values);
  return quantize(type, values);
}

/** From where on f16 is infinite: of values, or of the scale of a block that has 127 steps. */
const TOO_LARGE: Partial<Record<WritableType, number>> = { F16: 65520, Q8_0: 127 * 65520 };

/** @throws LorikeetError `not-finite` for a finite value that `type` would make infinite */
function checkRange(name: string, type: WritableType, values: Float32Array): void {
  const end = TOO_LARGE[type] ?? Infinity;
  const bad = values.find((value) => Math.abs(value) >= end && Math.abs(value) < Infinity);
  if (bad === undefined) return;
  throw new LorikeetError(
    "not-finite",
    `Expected "${name}" to fit ${type}, got ${bad}, which it would make infinite`,
    { hint: "Write the model with --dtype bf16 or f32." },
  );
}

function encodeHead(
  metadata: GgufMetadata,
  specs: readonly GgufTensorSpec[],
  alignment: number,
): Uint8Array {
  const out = new Writer();
  out.scalar("u32", 0x46554747);
  out.scalar("u32", 3);
  out.scalar("u64", specs.length);
  out.scalar("u64", metadata.size);
  for (const [key, { type, value }] of metadata) {
    out.scalar("string", key);
    if (isArray(value)) {
      out.scalar("u32", 9);
      out.scalar("u32", GGUF_TYPE_IDS[type]);
      out.scalar("u64", value.length);
      for (const element of value) out.scalar(type, element);
    } else {
      out.scalar("u32", GGUF_TYPE_IDS[type]);
      out.scalar(type, value);
    }
  }
  let offset = 0;
  const names = new Set<string>();
  for (const spec of specs) {
    checkSpec(spec, names);
    const { name, type, shape } = spec;
    out.scalar("string", name);
    out.scalar("u32", shape.length);
    for (const dim of [...shape].reverse()) out.scalar("u64", dim);
    out.scalar("u32", GGML_TYPES[type].id);
    out.scalar("u64", offset);
    const length = ggmlBytes(type, sizeOf(shape));
    offset += length + padding(length, alignment);
  }
  return out.bytes(alignment);
}

function checkSpec({ name, type, shape }: GgufTensorSpec, names: Set<string>): void {
  if (names.has(name))
    throw new LorikeetError("duplicate-tensor", `Expected one tensor "${name}", got two`);
  names.add(name);
  if (new TextEncoder().encode(name).length > LONGEST_NAME)
    throw new LorikeetError(
      "gguf-name",
      `Expected tensor names of at most ${LONGEST_NAME} bytes, got "${name}"`,
      { hint: "llama.cpp cannot load longer names." },
    );
  const row = shape.at(-1) ?? 1;
  if (row % GGML_TYPES[type].block !== 0)
    throw new LorikeetError(
      "shape",
      `Expected rows of "${name}" to be whole blocks of ${GGML_TYPES[type].block} values for ${type}, got ${formatShape(shape)}`,
      { hint: "Write this tensor as F16." },
    );
}

function padding(length: number, alignment: number): number {
  return (alignment - (length % alignment)) % alignment;
}

function isArray(value: GgufScalar | readonly GgufScalar[]): value is readonly GgufScalar[] {
  return Array.isArray(value);
}

/** Grows as little-endian values are added. */
class Writer {
  #bytes = new Uint8Array(1 << 16);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  scalar(type: GgufScalarType, value: GgufScalar): void {
    if (type === "string") {
      const text = new TextEncoder().encode(value as string);
      this.scalar("u64", text.length);
      const start = this.#grow(text.length); // may replace #bytes
      this.#bytes.set(text, start);
      return;
    }
    const at = this.#grow(8);
    this.#length -= 8 - writeNumber(this.#view, at, type, value as number | bigint | boolean);
  }

  /** What was written, zero-padded to `alignment`. */
  bytes(alignment: number): Uint8Array {
    this.#grow(padding(this.#length, alignment));
    return this.#bytes.subarray(0, this.#length);
  }

  #grow(length: number): number {
    const at = this.#length;
    this.#length += length;
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#length);
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}

/** Writes one value; gives its size. */
function writeNumber(
  view: DataView,
  at: number,
  type: Exclude<GgufScalarType, "string">,
  value: number | bigint | boolean,
): number {
  switch (type) {
    case "u8":
    case "bool":
      view.setUint8(at, Number(value));
      return 1;
    case "i8":
      view.setInt8(at, Number(value));
      return 1;
    case "u16":
      view.setUint16(at, Number(value), true);
      return 2;
    case "i16":
      view.setInt16(at, Number(value), true);
      return 2;
    case "u32":
      view.setUint32(at, Number(value), true);
      return 4;
    case "i32":
      view.setInt32(at, Number(value), true);
      return 4;
    case "f32":
      view.setFloat32(at, Number(value), true);
      return 4;
    case "f64":
      view.setFloat64(at, Number(value), true);
      return 8;
    case "u64":
      view.setBigUint64(at, BigInt(value), true);
      return 8;
    case "i64":
      view.setBigInt64(at, BigInt(value), true);
      return 8;
  }
}
