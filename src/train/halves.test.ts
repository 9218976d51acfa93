import { expect, test } from "vitest";
import type { Tensors } from "../backends/backend.ts";
import { tensor } from "../tensor/tensor.ts";
import { halvesOf } from "./halves.ts";

const ids = (shape: readonly number[], values: readonly number[]): Tensors[string] =>
  tensor("i64", shape, BigInt64Array.from(values, BigInt));
const numbers = (batch: Tensors, name: string): number[] => Array.from(batch[name]!.data, Number);

/** 4 rows of 3 tokens, with targets of rows 0, 0, 2, 3 and room for `room` more. */
function batchOf(room: number): Tensors {
  const fill = new Array<number>(room).fill(0);
  return {
    input_ids: ids([4, 3], [10, 11, 12, 20, 21, 22, 30, 31, 32, 40, 41, 42]),
    position_ids: ids([4, 3], [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]),
    loss_rows: ids([4 + room], [0, 1, 7, 10, ...fill]),
    targets: ids([4 + room], [11, 12, 32, 42, ...fill]),
    loss_weights: tensor("f32", [4 + room], Float32Array.of(0.25, 0.25, 0.25, 0.25, ...fill)),
  };
}

test("halves have the rows of the whole once, as many targets, and point at their own rows", () => {
  const [a, b] = halvesOf(batchOf(0))!;
  expect(numbers(a, "input_ids")).toEqual([10, 11, 12, 20, 21, 22]); // rows 0 and 1
  expect(numbers(b, "input_ids")).toEqual([30, 31, 32, 40, 41, 42]);
  expect(a["input_ids"]!.shape).toEqual([2, 3]);
  expect(numbers(a, "loss_rows")).toEqual([0, 1]);
  expect(numbers(b, "loss_rows")).toEqual([1, 4]); // 7 and 10 less the two rows before
  expect(numbers(b, "targets")).toEqual([32, 42]);
});

test("halves of a batch with room for more targets have room too, and of one shape", () => {
  const [a, b] = halvesOf(batchOf(12))!;
  for (const half of [a, b]) {
    expect(half["loss_rows"]!.shape).toEqual([10]); // 5/8 of 16
    expect(numbers(half, "loss_weights").reduce((sum, weight) => sum + weight)).toBe(0.5);
  }
});

test("a classifier's targets go with their rows", () => {
  const [a, b] = halvesOf({
    input_ids: ids([2, 1], [5, 6]),
    segments: ids([2, 1], [1, 0]),
    targets: ids([2], [3, 4]),
    loss_weights: tensor("f32", [2], Float32Array.of(0.75, 0.25)),
  })!;
  expect([numbers(a, "targets"), numbers(b, "targets")]).toEqual([[3], [4]]);
  expect(numbers(b, "loss_weights")).toEqual([0.25]);
  expect(numbers(b, "segments")).toEqual([0]);
});

test("halves drop different elements, the same in each run", () => {
  const seeds = (): number[] =>
    halvesOf({ ...batchOf(0), dropout_seed: ids([], [7]) })!.flatMap((half) =>
      numbers(half, "dropout_seed"),
    );
  expect(seeds()).toEqual(seeds());
  expect(new Set(seeds()).size).toBe(2);
});

test("an odd number of rows and other inputs than texts have no halves", () => {
  expect(halvesOf({ input_ids: ids([3, 1], [1, 2, 3]) })).toBeUndefined();
  expect(halvesOf({ input_ids: ids([1, 1], [1]) })).toBeUndefined();
  expect(halvesOf({ ...batchOf(0), noise: ids([4], [1, 2, 3, 4]) })).toBeUndefined();
});
