import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { LorikeetError } from "../../errors.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import { memorySource } from "../byte-source.ts";
import { readTorch, readTorchTensor } from "./read.ts";

const fixture = new Uint8Array(
  readFileSync(new URL("../fixtures/state-dict.bin", import.meta.url)),
);

type Files = Record<string, Uint8Array | string>;

/** A stored zip archive; `flags` and `method` go into its directory, `large` writes all sizes in 64 bits. */
function zip(files: Files, { method = 0, flags = 0, large = false } = {}): Uint8Array {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, content] of Object.entries(files)) {
    const [text, data] = [Buffer.from(name), Buffer.from(content)];
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(text.length, 26);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50, 0);
    entry.writeUInt16LE(flags, 8);
    entry.writeUInt16LE(method, 10);
    entry.writeUInt32LE(data.length, 20);
    entry.writeUInt32LE(data.length, 24);
    entry.writeUInt16LE(text.length, 28);
    entry.writeUInt32LE(offset, 42);
    const extra = Buffer.alloc(large ? 28 : 0);
    if (large) {
      for (const at of [20, 24, 42]) entry.writeUInt32LE(0xffffffff, at);
      entry.writeUInt16LE(28, 30);
      extra.writeUInt32LE(0x180001, 0);
      for (const at of [4, 12]) extra.writeBigUInt64LE(BigInt(data.length), at);
      extra.writeBigUInt64LE(BigInt(offset), 20);
    }
    parts.push(local, text, data);
    directory.push(entry, text, extra);
    offset += 30 + text.length + data.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(Object.keys(files).length, 8);
  end.writeUInt16LE(Object.keys(files).length, 10);
  end.writeUInt32LE(size, 12);
  end.writeUInt32LE(offset, 16);
  if (large) {
    const record = Buffer.alloc(76);
    record.writeUInt32LE(0x06064b50, 0);
    record.writeBigUInt64LE(BigInt(Object.keys(files).length), 32);
    record.writeBigUInt64LE(BigInt(size), 40);
    record.writeBigUInt64LE(BigInt(offset), 48);
    record.writeUInt32LE(0x07064b50, 56);
    record.writeBigUInt64LE(BigInt(offset + size), 64);
    end.writeUInt32LE(0xffffffff, 16);
    end.writeUInt16LE(0xffff, 10);
    directory.push(record);
  }
  return new Uint8Array(Buffer.concat([...parts, ...directory, end]));
}

/** Bytes of a pickle: numbers are bytes, strings their characters. */
const pickle = (...parts: (number | string)[]): Uint8Array =>
  new Uint8Array(Buffer.concat(parts.map((part) => (typeof part === "number" ? Buffer.of(part) : Buffer.from(part, "latin1"))))); // prettier-ignore

const torch = (data: Uint8Array, more: Files = {}): Uint8Array =>
  zip({ "archive/data.pkl": data, ...more });
const u32 = (value: number): string => Buffer.from(Uint32Array.of(value).buffer).toString("latin1");
const text = (value: string): string => `X${u32(value.length)}${value}`;
const ints = (values: number[]): string => `(${values.map((value) => `J${u32(value)}`).join("")}t`;
const storage = (key: string, count: number, type = "FloatStorage"): string =>
  `(${text("storage")}ctorch\n${type}\n${text(key)}${text("cpu")}J${u32(count)}tQ`;
const view = (stored: string, offset: number, shape: number[], strides: number[]): string =>
  `ctorch._utils\n_rebuild_tensor_v2\n(${stored}J${u32(offset)}${ints(shape)}${ints(strides)}\x89}tR`;
const dict = (entries: Record<string, string>): Uint8Array =>
  pickle("\x80\x02}(", ...Object.entries(entries).map(([key, value]) => text(key) + value), "u."); // prettier-ignore

async function failure(bytes: Uint8Array): Promise<LorikeetError> {
  const error: unknown = await readTorch(memorySource(bytes, "x.bin")).catch((reason: unknown) => reason); // prettier-ignore
  expect(error).toBeInstanceOf(LorikeetError);
  expect((error as LorikeetError).message).toContain("x.bin");
  return error as LorikeetError;
}

describe("a file that torch.save wrote", () => {
  const source = memorySource(fixture);
  const load = async (
    name: string,
  ): Promise<{
    dtype: string;
    shape: readonly number[];
    values: number[];
    isContiguous: boolean;
  }> => {
    const stored = (await readTorch(source)).find((tensor) => tensor.name === name)!;
    const { dtype, shape, data } = await readTorchTensor(source, stored);
    return { dtype, shape, values: [...toFloat32({ dtype, shape, data })], isContiguous: stored.isContiguous }; // prettier-ignore
  };

  test("views become row-major tensors, contiguous ones in place", async () => {
    const grid = Array.from({ length: 24 }, (_, i) => i);
    expect(await load("linear.weight")).toEqual({ dtype: "f32", shape: [4, 6], values: grid, isContiguous: true }); // prettier-ignore
    const columns = [0, 1, 2, 3, 4, 5].flatMap((c) => [0, 1, 2, 3].map((r) => 6 * r + c));
    expect(await load("transposed")).toEqual({ dtype: "f32", shape: [6, 4], values: columns, isContiguous: false }); // prettier-ignore
    expect(await load("slice")).toEqual({ dtype: "f32", shape: [2, 3], values: [8, 9, 10, 14, 15, 16], isContiguous: false }); // prettier-ignore
    expect(await load("row")).toEqual({ dtype: "f32", shape: [6], values: [12, 13, 14, 15, 16, 17], isContiguous: true }); // prettier-ignore
  });

  test("parameters, scalars, empty tensors and every dtype", async () => {
    expect(await load("parameter")).toMatchObject({ dtype: "bf16", values: [1.5, -2] });
    expect(await load("scalar")).toMatchObject({ dtype: "i64", shape: [], values: [5] });
    expect(await load("empty")).toMatchObject({ shape: [0, 3], values: [] });
    const dtypes = { float64: "f64", float16: "f16", int32: "i32", int16: "i16", int8: "i8", uint8: "u8", bool: "bool" }; // prettier-ignore
    for (const [name, dtype] of Object.entries(dtypes))
      expect(await load(name)).toMatchObject({ dtype, values: [0, 1, 1] });
    expect(await readTorch(source)).toHaveLength(14);
  });

  test("every cut of it is refused with a code", async () => {
    for (let size = 0; size < fixture.length; size += 61) await failure(fixture.slice(0, size));
  });
});

test("a state dict inside a checkpoint is found", async () => {
  const inner = Buffer.from(dict({ w: view(storage("0", 2), 0, [2], [1]) })).toString("latin1").slice(2, -1); // prettier-ignore
  const file = torch(dict({ state_dict: inner }), { "archive/data/0": new Uint8Array(8) });
  expect(await readTorch(memorySource(file))).toMatchObject([{ name: "w", shape: [2] }]);
});

test("an archive with 64-bit sizes reads alike", async () => {
  const data = new Uint8Array(Float32Array.of(1, 2).buffer);
  const files = { "archive/data.pkl": dict({ w: view(storage("0", 2), 0, [2], [1]) }), "archive/data/0": data }; // prettier-ignore
  const source = memorySource(zip(files, { large: true }));
  const [stored] = await readTorch(source);
  expect([...(await readTorchTensor(source, stored!)).data]).toEqual([1, 2]);
});

describe("a pickle with code is refused, naming what it would run", () => {
  test.each([
    ["a system call", pickle("\x80\x02cposix\nsystem\n(", text("touch /tmp/owned"), "tR."), "posix.system"],
    ["eval", pickle("\x80\x02c__builtin__\neval\n(", text("1"), "tR."), "__builtin__.eval"],
    ["a protocol 4 global", pickle("\x80\x04\x8c\x08builtins\x8c\x04exec\x93(", text("1"), "tR."), "builtins.exec"],
    ["a global that is never called", pickle("\x80\x02cos\npopen\n."), "os.popen"],
    ["one hidden in a tensor's arguments", dict({ w: "ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\ntR" }), "os.system"],
    ["another function of torch", dict({ w: "ctorch.hub\nload\n)R" }), "torch.hub.load"],
    ["a storage that is called", dict({ w: "ctorch\nFloatStorage\n)R" }), "torch.FloatStorage"],
    ["a class with a name of our own", dict({ w: "ccollections\nOrderedDict.fromkeys\n)R" }), "collections.OrderedDict.fromkeys"],
  ])("%s", async (_, data, global) => {
    const error = await failure(torch(data));
    expect(error.code).toBe("unsafe-pickle");
    expect(error.message).toContain(global);
  }); // prettier-ignore

  test("opcodes that make objects are unknown", async () => {
    // INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT1, PERSID, STRING
    for (const opcode of [0x69, 0x6f, 0x81, 0x92, 0x82, 0x50, 0x53]) {
      const error = await failure(torch(pickle("\x80\x02(", opcode, "os\nsystem\n.")));
      expect(error.code).toBe("corrupt-pickle");
      expect(error.message).toContain(`opcode 0x${opcode.toString(16)}`);
    }
  });
});

describe("broken files are refused", () => {
  const good = view(storage("0", 4), 0, [4], [1]);
  const data = { "archive/data/0": new Uint8Array(16) };
  const one = (entry: string): Uint8Array => torch(dict({ w: entry }), data);
  test.each<[string, Uint8Array, string, RegExp]>([
    ["an empty file", new Uint8Array(0), "truncated-file", /at least 22 bytes/],
    ["no archive", new Uint8Array(100), "corrupt-zip", /no directory/],
    ["the format before 1.6", pickle("\x80\x02\x8a\x0a", "x".repeat(30)), "unsupported-torch-file", /before 1.6/],
    ["an archive without a pickle", zip({ a: "b" }), "unsupported-torch-file", /no data.pkl/],
    ["a big-endian file", torch(dict({}), { "archive/byteorder": "big" }), "unsupported-torch-file", /big-endian/],
    ["compressed entries", zip({ "archive/data.pkl": "x" }, { method: 8 }), "corrupt-zip", /compressed/],
    ["encrypted entries", zip({ "archive/data.pkl": "x" }, { flags: 1 }), "corrupt-zip", /encrypted/],
    ["a pickle that ends early", torch(pickle("\x80\x02}(")), "corrupt-pickle", /cut off/],
    ["a string longer than the pickle", torch(pickle("\x80\x02X", u32(2 ** 32 - 1), "a.")), "corrupt-pickle", /cut off/],
    ["a string of 2^60 bytes", torch(pickle("\x80\x04\x8d", "\0\0\0\0\0\0\0\x10", "a.")), "corrupt-pickle", /cut off/],
    ["an integer of 2^31 bytes", torch(pickle("\x80\x02\x8b", u32(2 ** 31), ".")), "corrupt-pickle", /integer of 2147483648 bytes/],
    ["an empty stack", torch(pickle("\x80\x02.")), "corrupt-pickle", /stack is empty/],
    ["a missing mark", torch(pickle("\x80\x02}u.")), "corrupt-pickle", /mark is missing/],
    ["an empty memo", torch(pickle("\x80\x02h\x07.")), "corrupt-pickle", /memo 7 is empty/],
    ["items on a list", torch(pickle("\x80\x02](NNu.")), "corrupt-pickle", /set on no dict/],
    ["elements on a dict", torch(pickle("\x80\x02}Na.")), "corrupt-pickle", /appended to no list/],
    ["state on a tuple", torch(pickle("\x80\x02)}b.")), "corrupt-pickle", /state is set/],
    ["a call of a number", torch(pickle("\x80\x02K\x01)R.")), "corrupt-pickle", /no function/],
    ["no dict", torch(pickle("\x80\x02K\x01.")), "corrupt-pickle", /holds no dict/],
    ["a number among tensors", one("K\x01"), "corrupt-pickle", /entry "w" is no tensor/],
    ["a storage of another device kind", one(view(`(${text("other")}ctorch\nFloatStorage\n${text("0")}${text("cpu")}K\x04tQ`, 0, [1], [1])), "corrupt-pickle", /names no storage/],
    ["missing data", torch(dict({ w: good })), "corrupt-pickle", /"w" has no data \("0" is missing\)/],
    ["too little data", torch(dict({ w: good }), { "archive/data/0": new Uint8Array(8) }), "corrupt-pickle", /needs 16 bytes, 8 are stored/],
    ["a view beyond its storage", one(view(storage("0", 4), 2, [3], [1])), "corrupt-pickle", /reaches beyond its 4 stored values/],
    ["a stride beyond its storage", one(view(storage("0", 4), 0, [2], [9])), "corrupt-pickle", /reaches beyond/],
    ["a huge view of one value", one(view(storage("0", 4), 0, [2 ** 30, 2 ** 30], [0, 0])), "corrupt-pickle", /reaches beyond/],
    ["strides of another rank", one(view(storage("0", 4), 0, [4], [1, 1])), "corrupt-pickle", /1 axes and 2 strides/],
    ["a negative offset", one(view(storage("0", 4), 2 ** 32 - 1, [1], [1])), "corrupt-pickle", /no storage, shape or strides/],
  ])("%s", async (_, file, code, message) => {
    const error = await failure(file);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  }); // prettier-ignore

  test("all faults of a state dict are listed at once", async () => {
    const error = await failure(torch(dict({ a: "N", b: good, c: "K\x02" })));
    expect(error.message).toMatch(/3 faults[^]*"a"[^]*"c"[^]*"b"/);
  });
});
