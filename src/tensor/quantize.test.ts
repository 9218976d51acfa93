import { expect, it } from "vitest";
import { decodeNf4, encodeInt8Rows, encodeNf4, NF4_LEVELS } from "./quantize.ts";
import { Random } from "./random.ts";

it("rounds each NF4 value to the nearest level of its block, first value in the high half", () => {
  const random = new Random(1);
  const values = Float32Array.from({ length: 640 }, () => random.normal() * 0.05);
  const { codes, absmax } = encodeNf4(values);
  const decoded = decodeNf4(codes, absmax);
  for (const [i, value] of values.entries()) {
    const scale = absmax[Math.floor(i / 64)]!;
    const nearest = Math.min(...[...NF4_LEVELS].map((level) => Math.abs(level * scale - value)));
    expect(Math.abs(decoded[i]! - value)).toBeLessThan(nearest + 1e-8);
  }
  const [first, second] = [decoded[0]! / absmax[0]!, decoded[1]! / absmax[0]!];
  expect(NF4_LEVELS[codes[0]! >> 4]).toBeCloseTo(first, 6);
  expect(NF4_LEVELS[codes[0]! & 15]).toBeCloseTo(second, 6);
});

it("keeps levels, their signs and zero exactly", () => {
  const values = Float32Array.from({ length: 64 }, (_, i) => 3 * NF4_LEVELS[i % 16]!);
  const { codes, absmax } = encodeNf4(values);
  expect([...absmax]).toEqual([3]);
  expect([...codes.subarray(0, 8)]).toEqual([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
  expect(decodeNf4(codes, absmax)).toEqual(values);
  expect(encodeNf4(new Float32Array(64))).toEqual({
    codes: new Uint8Array(32).fill(0x77),
    absmax: new Float32Array(1),
  });
});

it("scales int8 rows by their own absolute maximum", () => {
  const { codes, scales } = encodeInt8Rows(Float32Array.of(1, -2, 0.5, 0, 0, 0), 2);
  expect([...codes]).toEqual([64, -127, 32, 0, 0, 0]);
  expect([...scales]).toEqual([Math.fround(2 / 127), 0]);
});
