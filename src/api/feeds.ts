import { LorikeetError } from "../errors.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";

/** The inputs `input_ids` and `position_ids`, i64 [rows, length], of rows of ids; shorter rows are padded with 0. */
export function tokenFeeds(
  rows: readonly (readonly number[])[],
  length: number,
): Record<string, Tensor> {
  const cells = rows.flatMap((row) => Array.from({ length }, (_, t) => row[t] ?? 0));
  const shape = [rows.length, length];
  return {
    input_ids: int64(shape, cells),
    position_ids: int64(
      shape,
      cells.map((_, i) => i % length),
    ),
  };
}

/**
 * All inputs of a training step on `ids` (rows of one length): the mean loss over labels that are not -100, each
 * label predicted by the position before it.
 * @throws LorikeetError `no-supervised-token` when every label is -100
 */
export function lossFeeds(
  ids: readonly (readonly number[])[],
  labels: readonly (readonly number[])[],
): Record<string, Tensor> {
  const length = ids[0]?.length ?? 0;
  const found = labels.flatMap((row, b) =>
    row.flatMap((label, t) =>
      t === 0 || label === -100 ? [] : [{ label, row: b * length + t - 1 }],
    ),
  );
  const rows = found.length;
  if (rows === 0)
    throw new LorikeetError(
      "no-supervised-token",
      "Expected at least one label that is not -100, got none",
      {
        hint: "Labels are token ids, with -100 where nothing is learned; the first of a row never counts.",
      },
    );
  return {
    ...tokenFeeds(ids, length),
    loss_rows: int64(
      [rows],
      found.map(({ row }) => row),
    ),
    targets: int64(
      [rows],
      found.map(({ label }) => label),
    ),
    loss_weights: tensor("f32", [rows], new Float32Array(rows).fill(1 / rows)),
    dropout_seed: int64([], [0]),
  };
}

/** The inputs of an encoder, i64 [rows, longest row]: as `tokenFeeds`, with `segments` 1 for tokens and 0 for padding. */
export function encoderFeeds(rows: readonly (readonly number[])[]): Record<string, Tensor> {
  const length = Math.max(...rows.map((row) => row.length));
  const shape = [rows.length, length];
  const isToken = rows.flatMap((row) => Array.from({ length }, (_, t) => (t < row.length ? 1 : 0)));
  return {
    ...tokenFeeds(rows, length),
    segments: int64(shape, isToken),
    token_type_ids: int64(
      shape,
      isToken.map(() => 0),
    ),
  };
}

/** All inputs of a step of a classifier: the mean loss of `labels`, one number of a class for each row. */
export function classFeeds(
  ids: readonly (readonly number[])[],
  labels: readonly (readonly number[])[],
): Record<string, Tensor> {
  const rows = ids.length;
  return {
    ...encoderFeeds(ids),
    targets: int64(
      [rows],
      labels.map(([label]) => label!),
    ),
    loss_weights: tensor("f32", [rows], new Float32Array(rows).fill(1 / rows)),
    dropout_seed: int64([], [0]),
  };
}

/** Whole numbers as an i64 tensor. */
export function int64(shape: readonly number[], values: readonly number[]): Tensor {
  return tensor("i64", shape, BigInt64Array.from(values, BigInt));
}
