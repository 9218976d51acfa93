import { LorikeetError } from "../errors.ts";

/** A file-like range of bytes that can be read at any place. */
export interface ByteSource {
  /** What messages call it: a path or a description. */
  readonly name: string;
  /** Bytes in all. */
  readonly size: number;
  /**
   * `length` bytes from `offset`.
   * @throws LorikeetError `truncated-file` when the source ends before that
   */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** A source over bytes in memory; reads are views, not copies. */
export function memorySource(bytes: Uint8Array, name = "data in memory"): ByteSource {
  return {
    name,
    size: bytes.length,
    read(offset, length) {
      if (offset + length > bytes.length)
        return Promise.reject(truncated(name, offset + length, bytes.length));
      return Promise.resolve(bytes.subarray(offset, offset + length));
    },
  };
}

/** The error for a file that ends too early. */
export function truncated(name: string, expected: number, size: number): LorikeetError {
  return new LorikeetError(
    "truncated-file",
    `Expected ${name} to have at least ${expected} bytes, got ${size}: ${expected - size} bytes are missing`,
    { hint: "The file was cut off while it was copied or downloaded. Fetch it again." },
  );
}
