import { expect, test } from "vitest";
import { LorikeetError } from "../../errors.ts";
import { fromBf16, toBf16 } from "../../tensor/convert.ts";
import { tensor } from "../../tensor/tensor.ts";
import { applyGgufTransform, undoGgufTransform } from "./transform.ts";

const heads = { heads: 2, keyValueHeads: 1 };
const matrix = tensor("f32", [8, 1], Float32Array.of(0, 1, 2, 3, 4, 5, 6, 7));

test("query rows of each head are interleaved: reshape(heads, 2, D/2).swapaxes(1, 2)", () => {
  const permuted = applyGgufTransform(matrix, "permute-q", heads);
  expect([...permuted.data]).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
  const key = applyGgufTransform(matrix, "permute-k", heads);
  expect([...key.data]).toEqual([0, 4, 1, 5, 2, 6, 3, 7]);
  expect(undoGgufTransform(key, "permute-k", heads)).toEqual(matrix);
});

test("rows of any width and dtype are moved whole, biases too", () => {
  const wide = tensor("bf16", [4, 2], Uint16Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  const permuted = applyGgufTransform(wide, "permute-k", heads);
  expect([...permuted.data]).toEqual([1, 2, 5, 6, 3, 4, 7, 8]);
  const bias = tensor("f32", [4], Float32Array.of(0, 1, 2, 3));
  expect([...applyGgufTransform(bias, "permute-k", heads).data]).toEqual([0, 2, 1, 3]);
});

test.each(["none", "permute-q", "permute-k", "transpose", "add-one"] as const)(
  "%s is undone",
  (transform) => {
    const source = tensor(
      "f32",
      [8, 4],
      Float32Array.from({ length: 32 }, (_, i) => i),
    );
    const there = applyGgufTransform(source, transform, heads);
    expect(undoGgufTransform(there, transform, heads)).toEqual(source);
  },
);

test("transposes, and adds one in f32", () => {
  const source = tensor("f16", [2, 3], Uint16Array.of(1, 2, 3, 4, 5, 6));
  const transposed = applyGgufTransform(source, "transpose", heads);
  expect(transposed).toEqual(tensor("f16", [3, 2], Uint16Array.of(1, 4, 2, 5, 3, 6)));
  const norm = tensor("bf16", [1], Uint16Array.of(toBf16(0.01)));
  const increased = applyGgufTransform(norm, "add-one", heads);
  expect(increased).toEqual(tensor("f32", [1], Float32Array.of(1 + fromBf16(toBf16(0.01)))));
});

test("shapes that do not fit are refused", () => {
  expect(() => applyGgufTransform(tensor("f32", [6, 1]), "permute-q", heads)).toThrow(
    "Expected 2 heads of an even number of rows, got [6, 1]",
  );
  expect(() => applyGgufTransform(tensor("f32", [6]), "transpose", heads)).toThrow(LorikeetError);
});
