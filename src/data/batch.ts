import { type Tensor, tensor } from "../tensor/tensor.ts";
import { type Bucket, bucketFor } from "./buckets.ts";
import { type Example, supervisedTokens } from "./examples.ts";

/** What programs are compiled for: batches are padded to these sizes. */
export interface BatchShape {
  /** Rows of every batch, B. */
  readonly batchSize: number;
  /** Longest row; the last bucket of lengths. */
  readonly maxLength: number;
  /** Lengths are rounded up to multiples of this. Default 64. */
  readonly lengthMultiple?: number;
  /** Loss rows are rounded up to multiples of B·T divided by this. Default 8. */
  readonly lossRowSteps?: number;
  /** Sizes to pad to, where a batch fits into one of them; smallest first. */
  readonly buckets?: readonly Bucket[];
  readonly padId: number;
  /** Whether rows hold several samples: adds `segments`. */
  readonly packing: boolean;
}

/**
 * A batch as a step reads it, B rows of T tokens with R loss rows:
 * `input_ids`, `position_ids` (from 0 in each sample), with packing `segments` (number of the sample in its row,
 * padding has one of its own), all i64 (B, T); `loss_rows` i64 (R): b·T + t of positions whose next token is a target;
 * `targets` i64 (R): these tokens; `loss_weights` f32 (R): the given weight, 0 for rows that only fill up.
 */
export type Batch = Readonly<Record<string, Tensor>>;

/** `n` rounded up to a multiple of `multiple`, at most `max`. */
export function bucket(n: number, multiple: number, max: number): number {
  return Math.min(max, Math.ceil(n / multiple) * multiple);
}

/** Puts `rows` of samples into one batch; `weight` is what each target counts in the loss. */
export function collate(
  rows: readonly (readonly Example[])[],
  shape: BatchShape,
  weight: number,
): Batch {
  const { batchSize: B } = shape;
  const { T, R } = sizesOf(rows, shape);
  const ids = new BigInt64Array(B * T).fill(BigInt(shape.padId));
  const positions = new BigInt64Array(B * T);
  const segments = new BigInt64Array(B * T);
  const lossRows: number[] = [];
  const targets: number[] = [];
  for (let b = 0; b < B; b++) {
    let at = b * T;
    for (const [number, { inputIds, labelMask }] of (rows[b] ?? []).entries()) {
      for (let t = 0; t < inputIds.length; t++) {
        ids[at + t] = BigInt(inputIds[t]!);
        positions[at + t] = BigInt(t);
        segments[at + t] = BigInt(number);
        if (t === 0 || labelMask[t] === 0) continue;
        lossRows.push(at + t - 1);
        targets.push(inputIds[t]!);
      }
      at += inputIds.length;
    }
    segments.fill(BigInt(rows[b]?.length ?? 0), at, (b + 1) * T);
  }
  return {
    input_ids: tensor("i64", [B, T], ids),
    position_ids: tensor("i64", [B, T], positions),
    ...(shape.packing && { segments: tensor("i64", [B, T], segments) }),
    loss_rows: integers(lossRows, R),
    targets: integers(targets, R),
    loss_weights: tensor("f32", [R], new Float32Array(R).fill(weight, 0, lossRows.length)),
  };
}

/** Tokens a row and loss rows that `rows` are padded to. */
function sizesOf(
  rows: readonly (readonly Example[])[],
  shape: BatchShape,
): { T: number; R: number } {
  const { batchSize, maxLength, lengthMultiple = 64, lossRowSteps = 8, buckets = [] } = shape;
  const used = rows.map((row) => row.reduce((sum, { inputIds }) => sum + inputIds.length, 0));
  const need = { length: Math.max(...used), rows: supervisedIn(rows) };
  const chosen = bucketFor(buckets, need);
  if (chosen) return { T: chosen.length, R: chosen.rows };
  const T = bucket(need.length, lengthMultiple, maxLength);
  const most = batchSize * T;
  return { T, R: bucket(Math.max(1, need.rows), Math.ceil(most / lossRowSteps), most) };
}

function supervisedIn(rows: readonly (readonly Example[])[]): number {
  return rows.flat().reduce((sum, example) => sum + supervisedTokens(example), 0);
}

/** `values`, filled up with zeros. */
function integers(values: readonly number[], length: number): Tensor {
  const data = new BigInt64Array(length);
  for (let i = 0; i < values.length; i++) data[i] = BigInt(values[i]!);
  return tensor("i64", [length], data);
}
