import { expect, it } from "vitest";
import { bucketFor, chooseBuckets } from "./buckets.ts";

const options = { multiple: 64, maxLength: 500 };

it("keeps few lengths apart, with the most loss rows that each needs", () => {
  const needs = [
    { length: 10, rows: 8 },
    { length: 60, rows: 16 },
    { length: 70, rows: 4 },
  ];
  expect(chooseBuckets(needs, options)).toEqual([
    { length: 64, rows: 16 },
    { length: 128, rows: 4 },
  ]);
});

it("joins neighbours where that pads the least, down to four", () => {
  const needs = [64, 128, 128, 128, 192, 256, 256, 320].map((length) => ({
    length,
    rows: length / 2,
  }));
  const buckets = chooseBuckets(needs, options);
  expect(buckets.map(({ length }) => length)).toEqual([128, 192, 256, 320]);
  for (const need of needs) expect(bucketFor(buckets, need)).toBeDefined();
});

it("never exceeds the longest length, and finds none for what does not fit", () => {
  const buckets = chooseBuckets([{ length: 490, rows: 8 }], options);
  expect(buckets).toEqual([{ length: 500, rows: 8 }]);
  expect(bucketFor(buckets, { length: 490, rows: 9 })).toBeUndefined();
});
