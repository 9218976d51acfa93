import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { LorikeetError } from "../../errors.ts";
import { convert } from "../../tensor/convert.ts";
import { type Tensor, tensor } from "../../tensor/tensor.ts";
import { tensorFromBytes } from "../tensor-bytes.ts";
import { dequantize } from "./dequantize.ts";
import type { GgufMetadata } from "./metadata.ts";
import { parseGguf } from "./read.ts";
import { encodeGguf, type GgufTensorSpec, storedType } from "./write.ts";

async function whole(
  metadata: GgufMetadata,
  specs: readonly GgufTensorSpec[],
  read: (name: string) => Tensor,
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of encodeGguf(metadata, specs, read)) pieces.push(piece);
  return new Uint8Array(Buffer.concat(pieces));
}

const values = Float32Array.from({ length: 96 }, (_, i) => Math.sin(i));

test("metadata of every type and tensors of every writable type read back", async () => {
  const metadata: GgufMetadata = new Map([
    ["general.architecture", { type: "string", value: "llama 🦜" }],
    ["u8", { type: "u8", value: 200 }],
    ["i8", { type: "i8", value: -100 }],
    ["u16", { type: "u16", value: 60000 }],
    ["i16", { type: "i16", value: -30000 }],
    ["u32", { type: "u32", value: 4000000000 }],
    ["i32", { type: "i32", value: -2000000000 }],
    ["f32", { type: "f32", value: 0.25 }],
    ["f64", { type: "f64", value: 0.1 }],
    ["bool", { type: "bool", value: true }],
    ["u64", { type: "u64", value: 2n ** 64n - 1n }],
    ["i64", { type: "i64", value: -7 }],
    ["strings", { type: "string", value: Array.from({ length: 30000 }, (_, i) => `token ${i}`) }],
    ["empty", { type: "i32", value: [] }],
    ["flags", { type: "bool", value: [true, false] }],
  ]);
  const types = ["F32", "F16", "BF16", "Q8_0"] as const;
  const specs = types.map((type) => ({ name: `t.${type}`, type, shape: [3, 32] }));
  const file = await whole(metadata, specs, () => tensor("f32", [3, 32], values));
  const header = parseGguf(file)!;
  expect(header.version).toBe(3);
  expect(header.metadata).toEqual(metadata);
  expect(header.tensors.map(({ name, type, shape }) => ({ name, type, shape }))).toEqual(specs);
  for (const { type, offset, length } of header.tensors) {
    expect(offset % 32).toBe(0);
    const back = dequantize(type, file.subarray(offset, offset + length), 96);
    // f16 keeps 11 bits, bf16 8, q8_0 steps of 1/127 of the block's largest value: all below 1
    const tolerance = { F32: 0, F16: 2 ** -11, BF16: 2 ** -8, Q8_0: 0.0045 }[type as "F32"];
    expect(Math.max(...back.map((x, i) => Math.abs(x - values[i]!)))).toBeLessThanOrEqual(
      tolerance,
    );
  }
  expect(file.length % 32).toBe(0);
});

test("gives back the bytes of a file that gguf-py wrote", async () => {
  const file = readFileSync(new URL("../fixtures/quants.gguf", import.meta.url));
  const { metadata, tensors } = parseGguf(new Uint8Array(file))!;
  const writable = ["F32", "F16", "BF16"];
  const floats = tensors.filter(({ type }) => writable.includes(type));
  const rewritten = await whole(metadata, floats as GgufTensorSpec[], (name) => {
    const { type, shape, offset, length } = tensors.find((stored) => stored.name === name)!;
    const dtype = type.toLowerCase() as "f32" | "f16" | "bf16";
    return tensorFromBytes(dtype, shape, new Uint8Array(file.subarray(offset, offset + length)));
  });
  const back = parseGguf(rewritten)!;
  expect(back.metadata).toEqual(metadata);
  for (const [i, { offset, length }] of back.tensors.entries()) {
    const original = file.subarray(floats[i]!.offset, floats[i]!.offset + length);
    expect(original.equals(rewritten.subarray(offset, offset + length))).toBe(true);
  }
  const keysEnd = file.indexOf("Q4_0") - 8; // the tensor table begins: metadata before it are the same bytes
  expect(file.subarray(24, keysEnd).equals(rewritten.subarray(24, keysEnd))).toBe(true);
});

test("other alignments are honoured", async () => {
  const metadata: GgufMetadata = new Map([["general.alignment", { type: "u32", value: 128 }]]);
  const specs = ["a", "b"].map((name) => ({ name, type: "F32" as const, shape: [1] }));
  const file = await whole(metadata, specs, () => tensor("f32", [1], Float32Array.of(5)));
  expect(parseGguf(file)!.tensors.map(({ offset }) => offset % 128)).toEqual([0, 0]);
  expect(file.length % 128).toBe(0);
});

test("any float dtype is converted", async () => {
  const half = convert(tensor("f32", [96], values), "bf16");
  const file = await whole(new Map(), [{ name: "a", type: "F32", shape: [96] }], () => half);
  const { offset } = parseGguf(file)!.tensors[0]!;
  const data = new Float32Array(file.slice(offset, offset + 384).buffer);
  expect(tensor("f32", [96], data)).toEqual(convert(half, "f32"));
});

test("what llama.cpp could not load is refused", async () => {
  const a = { name: "a", type: "F32", shape: [1] } as const;
  const read = (): Tensor => tensor("f32", [2]);
  const refusals: [GgufTensorSpec[], RegExp][] = [
    [[a], /Expected "a" to be \[1\], got \[2\]/],
    [[a, a], /one tensor "a", got two/],
    [[{ ...a, name: "é".repeat(32) }], /at most 63 bytes/],
    [[{ name: "q", type: "Q8_0", shape: [2, 33] }], /whole blocks of 32 values/],
  ];
  for (const [specs, message] of refusals) {
    await expect(whole(new Map(), specs, read)).rejects.toThrow(message);
    await expect(whole(new Map(), specs, read)).rejects.toThrow(LorikeetError);
  }
});

test("vectors stay F32 and rows that do not fit become F16", () => {
  expect(storedType("Q8_0", [64])).toBe("F32");
  expect(storedType("Q8_0", [2, 64])).toBe("Q8_0");
  expect(storedType("Q8_0", [2, 33])).toBe("F16");
  expect(storedType("BF16", [2, 33])).toBe("BF16");
});

test("what a type would make infinite is refused by name; what is infinite already is written", async () => {
  const at = (value: number): Tensor => tensor("f32", [1, 32], values.slice(0, 32).fill(value, 3, 4)); // prettier-ignore
  for (const [type, largest] of [["F16", 65504], ["Q8_0", 127 * 65504]] as const) {
    const specs = [{ name: "t", type, shape: [1, 32] }];
    await expect(whole(new Map(), specs, () => at(-1.01 * largest))).rejects.toMatchObject({
      code: "not-finite",
      message: expect.stringContaining(`Expected "t" to fit ${type}`) as string,
    });
    for (const value of [largest, Infinity])
      expect((await whole(new Map(), specs, () => at(value))).length).toBeGreaterThan(0);
  } // prettier-ignore
});
