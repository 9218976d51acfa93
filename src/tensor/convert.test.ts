import { expect, test } from "vitest";
import { encodeBf16, encodeF16, toBf16, toF16 } from "./convert.ts";
import { Random } from "./random.ts";

test("whole arrays are encoded as single values are: every exponent, sign, tie, NaN and infinity", () => {
  const random = new Random(1);
  const bits = Uint32Array.from({ length: 65536 }, (_, upper) => {
    const lower = [0, 0x1000, 0x8000, 0x7fff, 0x8001, random.word() & 0xffff][random.integer(6)]!;
    return ((upper << 16) | lower) >>> 0;
  });
  const values = new Float32Array(bits.buffer);
  expect(encodeBf16(values)).toEqual(Uint16Array.from(values, toBf16));
  expect(encodeF16(values)).toEqual(Uint16Array.from(values, toF16));
});
