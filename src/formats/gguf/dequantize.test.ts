import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { LorikeetError } from "../../errors.ts";
import { sizeOf } from "../../tensor/shape.ts";
import { dequantize } from "./dequantize.ts";
import { quantize } from "./quantize.ts";
import { type GgufTensor, parseGguf } from "./read.ts";

const file = new Uint8Array(readFileSync(new URL("../fixtures/quants.gguf", import.meta.url)));
const tensors = new Map(parseGguf(file)!.tensors.map((tensor) => [tensor.name, tensor]));

function stored(name: string): { tensor: GgufTensor; bytes: Uint8Array } {
  const tensor = tensors.get(name)!;
  return { tensor, bytes: file.slice(tensor.offset, tensor.offset + tensor.length) };
}

function values(name: string): Float32Array {
  const { tensor, bytes } = stored(name);
  return dequantize(tensor.type, bytes, sizeOf(tensor.shape));
}

describe("blocks have the values that gguf-py reads from them, bit for bit", () => {
  test.each(["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])(
    "%s",
    (type) => {
      const got = values(type);
      expect(got.some((value) => value !== 0)).toBe(true);
      expect(got).toEqual(values(`${type}.expected`));
    },
  );
});

describe("values are quantized as gguf-py does, bit for bit", () => {
  test.each(["F16", "BF16", "Q8_0"] as const)("%s", (type) => {
    expect(quantize(type, values("values"))).toEqual(stored(`values.${type}`).bytes);
  });

  test("F32 keeps the bytes", () => {
    expect(quantize("F32", values("values"))).toEqual(stored("values").bytes);
  });
});

test.each([
  ["F16", 2 ** -11],
  ["BF16", 2 ** -8],
  ["Q8_0", 1 / 254 + 2 ** -11],
] as const)("%s brings values back within its step", (type, tolerance) => {
  const source = Float32Array.from({ length: 256 }, (_, i) => Math.sin(i) * 2 ** (i % 8));
  const back = dequantize(type, quantize(type, source), source.length);
  const largest = type === "Q8_0" ? 128 : 0; // Q8_0 errs by the block's largest value, floats by their own
  back.forEach((value, i) => {
    expect(Math.abs(value - source[i]!)).toBeLessThanOrEqual(
      tolerance * Math.max(largest, Math.abs(source[i]!)),
    );
  });
});

test("types without a reader, wrong lengths and broken blocks are refused", () => {
  expect(() => dequantize("IQ4_XS", new Uint8Array(136), 256)).toThrow(/got IQ4_XS/);
  expect(() => dequantize("Q8_0", new Uint8Array(33), 32)).toThrow(/34 bytes for 32 values/);
  expect(() => quantize("Q8_0", new Float32Array(33))).toThrow(LorikeetError);
});
