import { LorikeetError } from "../../errors.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import { formatShape } from "../../tensor/shape.ts";
import { type Tensor, tensor } from "../../tensor/tensor.ts";
import type { GgufTransform } from "./names.ts";

/** Numbers of query heads and of key and value heads. */
export interface HeadCounts {
  readonly heads: number;
  readonly keyValueHeads: number;
}

/**
 * A Hugging Face tensor as GGUF stores it. For LoRA, `permute-q` and `permute-k` apply to `lora_B` alike.
 * @throws LorikeetError `shape` when the rows are no whole heads of even size, or a transposed tensor is no matrix
 */
export function applyGgufTransform(
  source: Tensor,
  transform: GgufTransform,
  heads: HeadCounts,
): Tensor {
  switch (transform) {
    case "none":
      return source;
    case "permute-q":
      return permute(source, heads.heads, "interleave");
    case "permute-k":
      return permute(source, heads.keyValueHeads, "interleave");
    case "transpose":
      return transpose(source);
    case "add-one":
      return tensor("f32", source.shape, toFloat32(source).map((value) => value + 1)); // prettier-ignore
  }
}

/** A GGUF tensor as Hugging Face stores it: the inverse of `applyGgufTransform`. @throws LorikeetError `shape` */
export function undoGgufTransform(
  source: Tensor,
  transform: GgufTransform,
  heads: HeadCounts,
): Tensor {
  switch (transform) {
    case "permute-q":
      return permute(source, heads.heads, "split");
    case "permute-k":
      return permute(source, heads.keyValueHeads, "split");
    case "add-one":
      return tensor("f32", source.shape, toFloat32(source).map((value) => value - 1)); // prettier-ignore
    default:
      return applyGgufTransform(source, transform, heads);
  }
}

/**
 * Reorders the rows of each head: Hugging Face rotates halves (row j with row j + D/2), ggml neighbours
 * (row 2j with row 2j + 1). `interleave` goes from the first to the second, `split` back.
 */
function permute(source: Tensor, heads: number, direction: "interleave" | "split"): Tensor {
  const { dtype, shape, data } = source;
  const rows = shape[0] ?? 0;
  const size = rows / heads;
  if (size % 2 !== 0)
    throw new LorikeetError(
      "shape",
      `Expected ${heads} heads of an even number of rows, got ${formatShape(shape)}`,
    );
  const width = data.length / rows;
  const out = data.slice();
  for (let head = 0; head < heads; head++)
    for (let j = 0; j < size; j++) {
      const half = head * size + (j & 1 ? size / 2 : 0) + (j >> 1);
      const neighbour = head * size + j;
      const [to, from] = direction === "interleave" ? [neighbour, half] : [half, neighbour];
      out.set(data.subarray(from * width, (from + 1) * width) as never, to * width);
    }
  return tensor(dtype, shape, out);
}

function transpose({ dtype, shape, data }: Tensor): Tensor {
  const [rows, columns] = shape;
  if (rows === undefined || columns === undefined || shape.length !== 2)
    throw new LorikeetError("shape", `Expected a matrix to transpose, got ${formatShape(shape)}`);
  const out = data.slice();
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) out[c * rows + r] = data[r * columns + c]!;
  return tensor(dtype, [columns, rows], out);
}
