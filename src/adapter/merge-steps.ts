import { toFloat32 } from "../tensor/convert.ts";
import { sizeOf } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";

/** ΔW = scale · B·A of one weight. */
export interface LoraUpdate {
  /** (r, in …) */
  readonly a: Tensor;
  /** (out, r …) */
  readonly b: Tensor;
  readonly scale: number;
  /** W is stored (in, out): Conv1D of GPT-2, and embeddings. */
  readonly isTransposed: boolean;
  /** DoRA's m, one value an output feature. */
  readonly magnitude?: Tensor;
}

/** One change of a weight. */
export type MergeStep =
  | { readonly kind: "replace"; readonly value: Tensor }
  | { readonly kind: "rows"; readonly indices: readonly number[]; readonly value: Tensor }
  | { readonly kind: "add"; readonly value: Tensor; readonly scale: number }
  | { readonly kind: "lora"; readonly update: LoraUpdate };

/**
 * `base` after `steps`, f32; sums are taken in float64 and rounded once. DoRA: m / ‖W + ΔW‖ · (W + ΔW), norms per
 * output feature. https://arxiv.org/abs/2106.09685 §4.1, https://arxiv.org/abs/2402.09353
 */
export function mergeWeight(base: Tensor, steps: readonly MergeStep[]): Tensor {
  let merged = tensor("f32", base.shape, toFloat32(base).slice());
  for (const step of steps) merged = applyStep(merged, step);
  return merged;
}

/** `merged` before a LoRA update without DoRA, or a bias, was added to it, f32: what `mergeWeight` can undo. */
export function unmergeWeight(merged: Tensor, steps: readonly MergeStep[]): Tensor {
  const out = tensor("f32", merged.shape, toFloat32(merged).slice());
  for (const step of steps) {
    if (step.kind === "add") addScaled(out, step.value, -step.scale);
    if (step.kind === "lora") addProduct(out, { ...step.update, scale: -step.update.scale });
  }
  return out;
}

function applyStep(base: Tensor, step: MergeStep): Tensor {
  switch (step.kind) {
    case "replace":
      return tensor("f32", step.value.shape, toFloat32(step.value).slice());
    case "rows": {
      const width = sizeOf(base.shape) / base.shape[0]!;
      const rows = toFloat32(step.value);
      for (const [i, row] of step.indices.entries())
        base.data.set(rows.subarray(i * width, (i + 1) * width) as never, row * width);
      return base;
    }
    case "add":
      return addScaled(base, step.value, step.scale);
    case "lora":
      addProduct(base, step.update);
      if (step.update.magnitude) setNorms(base, step.update.magnitude, step.update.isTransposed);
      return base;
  }
}

function addScaled(base: Tensor, value: Tensor, scale: number): Tensor {
  const values = toFloat32(value);
  for (let i = 0; i < values.length; i++) base.data[i] = (base.data[i] as number) + scale * values[i]!; // prettier-ignore
  return base;
}

/** Adds scale · B·A (or its transpose) to W, a row of W at a time. */
function addProduct(base: Tensor, { a, b, scale, isTransposed }: LoraUpdate): void {
  const rank = a.shape[0]!;
  const down = toFloat32(a);
  const up = toFloat32(b);
  const [inputs, outputs] = [down.length / rank, up.length / rank];
  const weight = base.data as Float32Array;
  const [rows, columns] = isTransposed ? [inputs, outputs] : [outputs, inputs];
  // W's row i is the sum over r of left[i, r] · right[r, :]
  const left = isTransposed ? transposed(down, rank, inputs) : up;
  const right = isTransposed ? transposed(up, outputs, rank) : down;
  const sums = new Float64Array(columns);
  for (let i = 0; i < rows; i++) {
    const row = weight.subarray(i * columns, (i + 1) * columns);
    sums.set(row);
    for (let r = 0; r < rank; r++) {
      const factor = scale * left[i * rank + r]!;
      const start = r * columns;
      for (let j = 0; j < columns; j++) sums[j]! += factor * right[start + j]!;
    }
    row.set(sums);
  }
}

/** Scales each output feature of W to the norm `magnitude`. */
function setNorms(base: Tensor, magnitude: Tensor, isTransposed: boolean): void {
  const weight = base.data as Float32Array;
  const targets = toFloat32(magnitude);
  const outputs = targets.length;
  const inputs = weight.length / outputs;
  const [outputStep, inputStep] = isTransposed ? [1, outputs] : [inputs, 1];
  for (let o = 0; o < outputs; o++) {
    let sum = 0;
    for (let i = 0, at = o * outputStep; i < inputs; i++, at += inputStep) sum += weight[at]! ** 2;
    const factor = targets[o]! / Math.sqrt(sum);
    for (let i = 0, at = o * outputStep; i < inputs; i++, at += inputStep) weight[at]! *= factor;
  }
}

/** The transpose (columns, rows) of a matrix (rows, columns). */
function transposed(matrix: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(matrix.length);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) out[j * rows + i] = matrix[i * columns + j]!;
  return out;
}
