/** @file Index arithmetic of generated code: coordinates as C expressions, simplified where sizes are known. */
import { type Shape, stridesOf } from "../../../tensor/shape.ts";

/**
 * One coordinate. `column` says how it follows the running column `c` of the kernel: not at all, exactly as
 * c + `offset` ("unit"), or in some other way.
 */
export interface Index {
  readonly text: string;
  readonly column: "none" | "unit" | "other";
  readonly offset: number;
}

export const ZERO: Index = { text: "0u", column: "none", offset: 0 };

export function plain(text: string): Index {
  return { text, column: "none", offset: 0 };
}

/** The running column itself. */
export const COLUMN: Index = { text: "c", column: "unit", offset: 0 };

/** `index` + `amount`. */
export function shifted(index: Index, amount: number): Index {
  if (amount === 0) return index;
  const text = amount > 0 ? `(${index.text} + ${amount}u)` : `(${index.text} - ${-amount}u)`;
  return { text, column: index.column, offset: index.offset + amount };
}

/** Coordinates in `dims` of the linear index `index`. */
export function split(index: Index, dims: Shape): Index[] {
  const strides = stridesOf(dims);
  const wide = dims.findIndex((dim) => dim !== 1);
  const isOnly = dims.every((dim, axis) => axis === wide || dim === 1);
  return dims.map((dim, axis) => {
    if (dim === 1) return ZERO;
    if (isOnly) return index;
    const stride = strides[axis]!;
    const quotient = stride === 1 ? index.text : `(${index.text} / ${stride}u)`;
    const text = axis === wide ? quotient : `(${quotient} % ${dim}u)`;
    return { text, column: index.column === "none" ? "none" : "other", offset: 0 };
  });
}

/** The row-major linear index of coordinates in `dims`. */
export function joined(indices: readonly Index[], dims: Shape): Index {
  const strides = stridesOf(dims);
  const terms = indices.flatMap((index, axis) =>
    dims[axis] === 1 || index.text === "0u" ? [] : [{ index, stride: strides[axis]! }],
  );
  if (terms.length === 0) return ZERO;
  if (terms.length === 1 && terms[0]!.stride === 1) return terms[0]!.index;
  const text = terms
    .map(({ index, stride }) => (stride === 1 ? index.text : `${index.text} * ${stride}u`))
    .join(" + ");
  const moving = terms.filter(({ index }) => index.column !== "none");
  const isUnit =
    moving.length === 1 && moving[0]!.stride === 1 && moving[0]!.index.column === "unit";
  const column = moving.length === 0 ? "none" : isUnit ? "unit" : "other";
  return { text: `(${text})`, column, offset: 0 };
}

/** Coordinates in `to` of the element at `indices` in `from`, which has as many elements. Axes that agree pass through. */
export function reshaped(indices: readonly Index[], from: Shape, to: Shape): Index[] {
  const out: Index[] = [];
  let [i, j] = [0, 0];
  while (i < from.length || j < to.length) {
    let [a, b] = [i, j];
    let [x, y] = [from[a++] ?? 1, to[b++] ?? 1];
    while (x !== y) {
      if (x < y) x *= from[a++]!;
      else y *= to[b++]!;
    }
    // trailing ones join the group they follow, so that they never stand alone at the end
    while (from[a] === 1 && a < from.length) a++;
    while (to[b] === 1 && b < to.length) b++;
    out.push(...split(joined(indices.slice(i, a), from.slice(i, a)), to.slice(j, b)));
    [i, j] = [Math.min(a, from.length), Math.min(b, to.length)];
  }
  return out;
}

/** Coordinates in an input of shape `from` that broadcasts to `indices` of `shape`. */
export function broadcasted(indices: readonly Index[], from: Shape): Index[] {
  const lead = indices.length - from.length;
  return from.map((dim, axis) => (dim === 1 ? ZERO : indices[axis + lead]!));
}

/** First axis of the trailing axes of `shape` that hold exactly `columns` elements, or undefined. */
export function columnAxis(shape: Shape, columns: number): number | undefined {
  let size = 1;
  for (let axis = shape.length; axis >= 0; axis--) {
    if (size === columns) {
      let first = axis;
      while (first > 0 && shape[first - 1] === 1 && first === shape.length) first--;
      return first;
    }
    if (axis > 0) size *= shape[axis - 1]!;
  }
  return undefined;
}
