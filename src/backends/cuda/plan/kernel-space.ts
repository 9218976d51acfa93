/** @file The rows and columns that a generated kernel runs over, and where a node's elements are in them. */
import type { Node } from "../../../ir/node.ts";
import { type Shape, sizeOf } from "../../../tensor/shape.ts";
import { isReduction } from "./graph.ts";
import { COLUMN, columnAxis, type Index, plain, split } from "./indices.ts";

/** Rows and columns that a kernel runs over. */
export interface Space {
  readonly rows: number;
  readonly columns: number;
}

/** The space in which `node` is computed: rows of its reduced axes, or of its last axis. */
export function spaceOf(node: Node): Space | undefined {
  const source = isReduction(node) ? node.inputs[0]! : node;
  const size = sizeOf(source.shape);
  if (!isReduction(node)) {
    const columns = source.shape.findLast((dim) => dim !== 1) ?? 1;
    return { rows: size / columns, columns };
  }
  const axes = [...(node.attrs["axes"] as readonly number[])].sort((a, b) => a - b);
  const wide = axes.filter((axis) => source.shape[axis] !== 1);
  const first = wide[0] ?? source.shape.length;
  const isTrailing = source.shape
    .slice(first)
    .every((dim, i) => dim === 1 || wide.includes(first + i));
  if (!isTrailing) return undefined;
  const columns = wide.reduce((product, axis) => product * source.shape[axis]!, 1);
  return { rows: size / columns, columns };
}

/** Coordinates of `shape` for row `row` and, when the shape has the space's columns, column c. */
export function coordinates(shape: Shape, { rows, columns }: Space): Index[] {
  if (sizeOf(shape) === rows) return split(plain("row"), shape);
  const axis = columnAxis(shape, columns)!;
  return [...split(plain("row"), shape.slice(0, axis)), ...split(COLUMN, shape.slice(axis))];
}
