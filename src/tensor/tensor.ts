import { LorikeetError } from "../errors.ts";
import { allocate, type DType, type TypedArray } from "./dtype.ts";
import { formatShape, type Shape, sizeOf } from "./shape.ts";

/** A dense row-major array in memory: what goes into and comes out of programs and files. */
export interface Tensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: TypedArray;
}

/**
 * A tensor over `data` (not copied), or zeros when `data` is left out.
 * @throws LorikeetError `shape` when `data` has another number of elements than `shape`
 */
export function tensor(dtype: DType, shape: Shape, data?: TypedArray): Tensor {
  const size = sizeOf(shape);
  if (data && data.length !== size)
    throw new LorikeetError(
      "shape",
      `Expected ${size} elements for ${dtype} ${formatShape(shape)}, got ${data.length}`,
    );
  return { dtype, shape, data: data ?? allocate(dtype, size) };
}
