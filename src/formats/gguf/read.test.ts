import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { LorikeetError } from "../../errors.ts";
import { memorySource } from "../byte-source.ts";
import { GGUF_TYPE_IDS, getNumber, getNumbers, getString, getStrings } from "./metadata.ts";
import { parseGguf, readGguf } from "./read.ts";

const quants = new Uint8Array(readFileSync(new URL("../fixtures/quants.gguf", import.meta.url)));

/** Bytes of a GGUF file from numbers (u32), bigints (u64), strings and raw bytes. */
function bytes(...parts: (number | bigint | string | Uint8Array)[]): Uint8Array {
  const pieces = parts.flatMap((part) => {
    if (part instanceof Uint8Array) return [part];
    if (typeof part === "number") return [new Uint8Array(Uint32Array.of(part).buffer)];
    if (typeof part === "bigint") return [new Uint8Array(BigUint64Array.of(part).buffer)];
    const text = new TextEncoder().encode(part);
    return [new Uint8Array(BigUint64Array.of(BigInt(text.length)).buffer), text];
  });
  return new Uint8Array(Buffer.concat(pieces));
}

const MAGIC = 0x46554747;
const head = (tensors: bigint, keys: bigint): Uint8Array => bytes(MAGIC, 3, tensors, keys);
/** One tensor: name, axes, type number, offset. */
function entry(name: string, dims: (number | bigint)[], type: number, offset: bigint): Uint8Array {
  return bytes(name, dims.length, ...dims.map((dim) => BigInt(dim)), type, offset);
}
const padding = (size: number): Uint8Array => new Uint8Array(size);

function failure(file: Uint8Array): LorikeetError {
  try {
    parseGguf(file, file.length, "x.gguf");
  } catch (error) {
    expect(error).toBeInstanceOf(LorikeetError);
    return error as LorikeetError;
  }
  throw new Error("nothing was thrown");
}

test("reads metadata of every type", async () => {
  const { version, metadata } = await readGguf(memorySource(quants));
  expect(version).toBe(3);
  const scalars = Object.fromEntries([...metadata].map(([key, { value }]) => [key, value]));
  expect(scalars).toMatchObject({
    "general.architecture": "test",
    "test.u8": 255,
    "test.i8": -128,
    "test.u16": 65535,
    "test.i16": -32768,
    "test.u32": 4294967295,
    "test.i32": -2147483648,
    "test.f32": 0.5,
    "test.bool": true,
    "test.string": "zażółć 🦜",
    "test.u64": 2n ** 64n - 1n,
    "test.i64": -5,
    "test.f64": 0.1,
    "test.strings": ["a", "", "é"],
    "test.numbers": [1, -2, 3],
    "test.floats": [0.5, -1.5],
  });
  expect([...new Set([...metadata.values()].map(({ type }) => type))].sort()).toEqual(
    Object.keys(GGUF_TYPE_IDS).sort(),
  );
});

test("gives metadata by type, undefined when absent, an error when it is of another type", async () => {
  const { metadata } = await readGguf(memorySource(quants));
  expect(getString(metadata, "test.string")).toBe("zażółć 🦜");
  expect(getNumber(metadata, "test.u16")).toBe(65535);
  expect(getStrings(metadata, "test.strings")).toEqual(["a", "", "é"]);
  expect(getNumbers(metadata, "test.floats")).toEqual([0.5, -1.5]);
  expect(getNumber(metadata, "test.none")).toBeUndefined();
  expect(() => getNumber(metadata, "test.strings")).toThrow(
    'Expected GGUF metadata "test.strings" to be a number, got an array of string',
  );
  expect(() => getStrings(metadata, "test.numbers")).toThrow(LorikeetError);
});

test("asks for more when it has only the first bytes of a file", async () => {
  expect(parseGguf(quants.subarray(0, 30), quants.length)).toBeUndefined();
  expect(parseGguf(quants.subarray(0, 1000), quants.length)).toBeUndefined();
  const whole = parseGguf(quants);
  const reads: number[] = [];
  const source = memorySource(quants);
  const header = await readGguf({
    ...source,
    read: (offset, length) => {
      reads.push(length);
      return source.read(offset, length);
    },
  });
  expect(header).toEqual(whole);
  expect(reads).toEqual([quants.length]);
});

test("tensors have their shape outermost axis first and absolute offsets", () => {
  const file = bytes(head(2n, 0n), entry("a", [32, 3], 8, 0n), entry("b", [], 0, 128n), padding(300)); // prettier-ignore
  const { tensors } = parseGguf(file)!;
  const start = Math.ceil((file.length - 300) / 32) * 32;
  expect(tensors).toEqual([
    { name: "a", type: "Q8_0", shape: [3, 32], offset: start, length: 102 },
    { name: "b", type: "F32", shape: [], offset: start + 128, length: 4 },
  ]);
});

test.each<[string, Uint8Array, string, RegExp]>([
  ["nothing", padding(0), "truncated-file", /x.gguf to have at least 24 bytes, got 0/],
  ["a short text", new TextEncoder().encode("not a model"), "corrupt-gguf", /does not start with "GGUF"/],
  ["the magic alone", new TextEncoder().encode("GGUF"), "truncated-file", /got 4/],
  ["another magic", padding(64), "corrupt-gguf", /does not start with "GGUF"/],
  ["version 1", bytes(MAGIC, 1, 0n, 0n), "unsupported-gguf", /version 1/],
  ["version 2^31", bytes(MAGIC, 2 ** 31, 0n, 0n), "unsupported-gguf", /version 2147483648/],
  ["big-endian bytes", bytes(MAGIC, 0x03000000, 0n, 0n), "unsupported-gguf", /big-endian/],
  ["2^60 tensors", head(1n << 60n, 0n), "corrupt-gguf", /1152921504606846976 tensors/],
  ["2^63 keys", head(0n, 1n << 63n), "corrupt-gguf", /9223372036854775808 metadata keys/],
  ["a key of 2^62 bytes", bytes(head(0n, 1n), 1n << 62n, padding(20)), "corrupt-gguf", /4611686018427387904 bytes of text/],
  ["a string beyond the end", bytes(head(0n, 1n), "k", 8, 100n, padding(20)), "corrupt-gguf", /100 bytes of text, for which 20 bytes are too few/],
  ["an array of 2^61 strings", bytes(head(0n, 1n), "k", 9, 8, 1n << 61n), "corrupt-gguf", /elements of "k"/],
  ["an array beyond the end", bytes(head(0n, 1n), "k", 9, 4, 6n, padding(20)), "corrupt-gguf", /6 elements of "k"/],
  ["an array of arrays", bytes(head(0n, 1n), "k", 9, 9, 1n, padding(20)), "corrupt-gguf", /array of arrays/],
  ["an unknown value type", bytes(head(0n, 1n), "k", 13, padding(20)), "corrupt-gguf", /unknown type 13/],
  ["an unknown element type", bytes(head(0n, 1n), "k", 9, 77, padding(20)), "corrupt-gguf", /unknown type 77/],
  ["a key twice", bytes(head(0n, 2n), "k", 4, 1, "k", 4, 1), "corrupt-gguf", /"k" occurs twice/],
  ["a value cut off", bytes(head(0n, 1n), "kkkk", 10), "corrupt-gguf", /8 bytes are announced at offset \d+, 0 are left/],
  ["alignment 0", bytes(head(0n, 1n), "general.alignment", 4, 0), "corrupt-gguf", /alignment is 0/],
  ["alignment 48", bytes(head(0n, 1n), "general.alignment", 4, 48), "corrupt-gguf", /alignment is 48/],
  ["alignment that is text", bytes(head(0n, 1n), "general.alignment", 8, "32"), "corrupt-gguf", /alignment is 32/],
  ["five axes", bytes(head(1n, 0n), entry("a", [1, 1, 1, 1, 1], 0, 0n), padding(64)), "corrupt-gguf", /"a" has 5 axes/],
  ["2^32-1 axes", bytes(head(1n, 0n), "a", 2 ** 32 - 1, padding(64)), "corrupt-gguf", /4294967295 axes/],
  ["a shape that overflows", bytes(head(1n, 0n), entry("a", [1n << 40n, 1n << 40n], 0, 0n), padding(64)), "corrupt-gguf", /impossible shape \[1099511627776, 1099511627776\]/],
  ["a size of 2^64-1", bytes(head(1n, 0n), entry("a", [(1n << 64n) - 1n], 0, 0n), padding(64)), "corrupt-gguf", /impossible shape/],
  ["an offset of 2^63", bytes(head(1n, 0n), entry("a", [1], 0, 1n << 63n), padding(64)), "corrupt-gguf", /impossible offset 9223372036854775808/],
  ["an unaligned offset", bytes(head(1n, 0n), entry("a", [1], 0, 4n), padding(64)), "corrupt-gguf", /starts at 4, no multiple of 32/],
  ["rows that are no whole blocks", bytes(head(1n, 0n), entry("a", [33], 8, 0n), padding(64)), "corrupt-gguf", /rows of 33 values, Q8_0 takes blocks of 32/],
  ["a tensor twice", bytes(head(2n, 0n), entry("a", [1], 0, 0n), entry("a", [1], 0, 32n), padding(96)), "corrupt-gguf", /tensor "a" occurs twice/],
  ["overlapping tensors", bytes(head(2n, 0n), entry("a", [16], 0, 0n), entry("b", [1], 0, 32n), padding(96)), "corrupt-gguf", /tensor "b" overlaps tensor "a"/],
  ["an unknown tensor type", bytes(head(1n, 0n), entry("a", [1], 99, 0n), padding(64)), "unsupported-quantization", /"a" has type number 99/],
  ["data cut off", bytes(head(1n, 0n), entry("a", [1024], 0, 0n), padding(64)), "truncated-file", /bytes are missing/],
  ["a table cut off", bytes(head(2n, 0n), entry("a", [1], 0, 0n)), "corrupt-gguf", /2 tensors, for which 41 bytes are too few/],
])("refuses %s", (_, file, code, message) => {
  const error = failure(file);
  expect(error.code).toBe(code);
  expect(error.message).toMatch(message);
  expect(error.message).toContain("x.gguf");
  expect(error.hint).toBeDefined();
}); // prettier-ignore

test("lists all faults of the tensor table at once", () => {
  const file = bytes(head(3n, 0n), entry("a", [1], 0, 4n), entry("b", [33], 8, 0n), entry("c", [1], 99, 0n), padding(96)); // prettier-ignore
  expect(failure(file).message).toMatch(/3 faults:[^]*"a"[^]*"b"[^]*"c"/);
});

test("every cut of a good file is refused with a code", () => {
  const end = Math.max(...parseGguf(quants)!.tensors.map(({ offset, length }) => offset + length));
  for (let size = 0; size < end; size += 13) failure(quants.slice(0, size));
});
