import { faultsError } from "../faults.ts";
import type { GgufScalar, GgufScalarType } from "./metadata.ts";

/** Thrown by a cursor that ran off the bytes at hand while the file has more. */
export class NeedsMore extends Error {}

/** Fewest bytes that one value takes. */
export const SCALAR_BYTES: Readonly<Record<GgufScalarType, number>> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  string: 8,
  u64: 8,
  i64: 8,
  f64: 8,
};

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** Reads little-endian values one after another from the first bytes of a file of `fileSize` bytes. */
export class Cursor {
  position = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #fileSize: number;
  readonly #name: string;

  constructor(bytes: Uint8Array, fileSize: number, name: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#fileSize = fileSize;
    this.#name = name;
  }

  /** Start of the next `length` bytes, which are passed over. */
  take(length: number): number {
    const start = this.position;
    if (start + length > this.#fileSize)
      throw this.corrupt(
        `${length} bytes are announced at offset ${start}, ${this.#fileSize - start} are left`,
      );
    if (start + length > this.#bytes.length) throw new NeedsMore();
    this.position += length;
    return start;
  }

  u32(): number {
    return this.#view.getUint32(this.take(4), true);
  }

  u64(): number | bigint {
    return narrow(this.#view.getBigUint64(this.take(8), true));
  }

  /** A 64-bit number of things that take at least `bytes` bytes each, which the file must have room for. */
  count(what: string, bytes: number): number {
    const count = this.u64();
    if (Number(count) * bytes > this.#fileSize - this.position)
      throw this.corrupt(
        `it announces ${count} ${what}, for which ${this.#fileSize - this.position} bytes are too few`,
      );
    return Number(count);
  }

  string(): string {
    const length = this.count("bytes of text", 1);
    const start = this.take(length);
    return decoder.decode(this.#bytes.subarray(start, start + length));
  }

  scalar(type: GgufScalarType): GgufScalar {
    if (type === "string") return this.string();
    const at = this.take(SCALAR_BYTES[type]);
    const view = this.#view;
    switch (type) {
      case "u8":
        return view.getUint8(at);
      case "i8":
        return view.getInt8(at);
      case "u16":
        return view.getUint16(at, true);
      case "i16":
        return view.getInt16(at, true);
      case "u32":
        return view.getUint32(at, true);
      case "i32":
        return view.getInt32(at, true);
      case "f32":
        return view.getFloat32(at, true);
      case "f64":
        return view.getFloat64(at, true);
      case "u64":
        return narrow(view.getBigUint64(at, true));
      case "i64":
        return narrow(view.getBigInt64(at, true));
      case "bool":
        return view.getUint8(at) !== 0;
    }
  }

  /** The error for a file whose structure cannot be followed further. */
  corrupt(fault: string): Error {
    return faultsError(
      "corrupt-gguf",
      `${this.#name} to be a GGUF file`,
      [fault],
      "The file is damaged or not GGUF. Fetch it again.",
    );
  }
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
