import type { Node } from "../ir/node.ts";
import type { Rules } from "../ir/rules.ts";
import type { DType } from "../tensor/dtype.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

const leaf = (name: string): Rules => ({ name, inputs: [], cases: [] });

/** Rules of the leaves: nodes without inputs, which engines bind to values. */
export const leaves: Readonly<Record<"parameter" | "input" | "constant" | "literal", Rules>> = {
  parameter: leaf("parameter"),
  input: leaf("input"),
  constant: leaf("constant"),
  literal: leaf("literal"),
};

/** A weight by its checkpoint or adapter name. Frozen unless `trainable`; `dtype` is the compute type. */
export function parameter(
  name: string,
  shape: Shape,
  options: { trainable?: boolean; dtype?: DType } = {},
): Node {
  const { trainable = false, dtype = "f32" } = options;
  return { op: leaves.parameter, inputs: [], attrs: { trainable }, shape, dtype, name };
}

/** A value that is fed at each run. */
export function input(name: string, shape: Shape, dtype: DType = "f32"): Node {
  return { op: leaves.input, inputs: [], attrs: {}, shape, dtype, name };
}

/** `value` everywhere in `shape`; a scalar by default. */
export function constant(value: number, shape: Shape = [], dtype: DType = "f32"): Node {
  return { op: leaves.constant, inputs: [], attrs: { value }, shape, dtype };
}

/** A fixed tensor that belongs to the program (a mask, a table of angles). */
export function literal(value: Tensor): Node {
  return {
    op: leaves.literal,
    inputs: [],
    attrs: {},
    shape: value.shape,
    dtype: value.dtype,
    value,
  };
}

/** Whether `node` is a weight that trains. */
export function isTrainable(node: Node): boolean {
  return node.op === leaves.parameter && node.attrs["trainable"] === true;
}

/** Whether `node` is a weight that does not train. */
export function isFrozen(node: Node): boolean {
  return node.op === leaves.parameter && node.attrs["trainable"] !== true;
}
