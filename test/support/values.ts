import { interpret } from "../../src/backends/reference/interpret.ts";
import { topological } from "../../src/ir/graph.ts";
import type { Node } from "../../src/ir/node.ts";
import { verify } from "../../src/ir/verify.ts";
import { Random } from "../../src/tensor/random.ts";
import { sizeOf } from "../../src/tensor/shape.ts";
import { tensor, type Tensor } from "../../src/tensor/tensor.ts";

/** Values of well-formed `roots`, whose leaves get values that depend on their names alone: ids below 3, else in [-1, 1). */
export function valuesOf(roots: readonly Node[]): number[][] {
  verify(roots);
  const leaves = new Map(topological(roots).map((node) => [node.name, node]));
  return interpret(roots, (name) => leafValue(leaves.get(name)!)).map(({ data }) => [...data]);
}

/** Largest absolute difference of two lists of values. */
export function largestDifference(a: readonly number[][], b: readonly number[][]): number {
  if (a.map(({ length }) => length).join() !== b.map(({ length }) => length).join())
    return Infinity;
  let largest = 0;
  a.forEach((values, i) => {
    values.forEach((x, j) => (largest = Math.max(largest, Math.abs(x - b[i]![j]!))));
  });
  return largest;
}

function leafValue({ name, shape, dtype }: Node): Tensor {
  const random = new Random(
    new TextEncoder().encode(name).reduce((sum, byte) => 31 * sum + byte, 7),
  );
  const draw = (): number => (dtype === "i64" ? random.integer(3) : 2 * random.uniform() - 1);
  return tensor("f64", shape, Float64Array.from({ length: sizeOf(shape) }, draw));
}
