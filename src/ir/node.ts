import type { DType } from "../tensor/dtype.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Rules } from "./rules.ts";

/** What an op carries besides its inputs. */
export type AttrValue = number | string | boolean | readonly number[] | readonly string[];
export type Attrs = Readonly<Record<string, AttrValue>>;

/** One value of a program: the result of `op` on `inputs`. Immutable; its shape is known. */
export interface Node {
  readonly op: Rules;
  readonly inputs: readonly Node[];
  readonly attrs: Attrs;
  readonly shape: Shape;
  readonly dtype: DType;
  /** Name of a leaf (checkpoint weight, adapter tensor or program input). */
  readonly name?: string;
  /** Values of a tensor constant. */
  readonly value?: Tensor;
  /** Set on nodes that compute a forward value again for the backward pass; never merged with the first. */
  readonly phase?: "recompute";
}

/** Shape and dtype of a node before it exists. */
export interface TypeOf {
  readonly shape: Shape;
  readonly dtype: DType;
}
