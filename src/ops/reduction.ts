/** @file What ops that reduce axes share. */
import { type Shape, sizeOf, stridesOf } from "../tensor/shape.ts";
import { shapeError } from "./define.ts";

/**
 * `shape` after reducing `axes`.
 * @throws LorikeetError `shape` for an axis that it does not have, or twice
 */
export function reducedShape(shape: Shape, axes: readonly number[], keepDims: boolean): number[] {
  if (new Set(axes).size < axes.length || axes.some((axis) => shape[axis] === undefined))
    throw shapeError("a reduction", "different axes of its input", { x: shape, axes });
  return shape.flatMap((dim, axis) => (axes.includes(axis) ? (keepDims ? [1] : []) : [dim]));
}

/** Combines all elements along `axes` by `f`, starting from `start`. Result row-major in the reduced shape. */
export function reduce(
  { shape, data }: { shape: Shape; data: Float64Array },
  axes: readonly number[],
  start: number,
  f: (x: number, y: number) => number,
): Float64Array {
  const kept = reducedShape(shape, axes, true);
  const strides = stridesOf(kept).map((stride, axis) => (axes.includes(axis) ? 0 : stride));
  const out = new Float64Array(sizeOf(kept)).fill(start);
  const index = new Array<number>(shape.length).fill(0);
  let offset = 0;
  for (const value of data) {
    out[offset] = f(out[offset]!, value);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      offset += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      offset -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}

/** All axes of `shape`, or those from `first` on. */
export function axesOf(shape: Shape, first = 0): number[] {
  return Array.from({ length: shape.length - first }, (_, i) => first + i);
}
