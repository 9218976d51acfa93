import { tensor, type Tensor } from "../../src/tensor/tensor.ts";
import { ints, positionsOf } from "./fixtures.ts";

/** Encoder checkpoints under test/fixtures/models. */
export const encoderFixtures: readonly string[] = ["bert", "roberta", "modernbert"];

/** What an encoder fixture's forward pass and its mean loss over rows are fed with. */
export function classificationFeeds(expected: ReadonlyMap<string, Tensor>): Record<string, Tensor> {
  const ids = expected.get("input_ids")!;
  const [batch, length] = ids.shape as [number, number];
  const types = expected.get("token_type_ids");
  return {
    input_ids: ids,
    position_ids: positionsOf(batch, length),
    segments: expected.get("attention_mask")!,
    targets: expected.get("labels")!,
    loss_weights: meanWeights(batch),
    ...(types && { token_type_ids: types }),
  };
}

/** What a causal fixture's mean next-token loss is fed with: every token predicts the one after it. */
export function nextTokenFeeds(ids: Tensor): Record<string, Tensor> {
  const [batch, length] = ids.shape as [number, number];
  const rows = Array.from({ length: batch * length }, (_, i) => i).filter(
    (i) => i % length < length - 1,
  );
  return {
    input_ids: ids,
    position_ids: positionsOf(batch, length),
    loss_rows: ints([rows.length], (i) => rows[i]!),
    targets: ints([rows.length], (i) => Number(ids.data[rows[i]! + 1])),
    loss_weights: meanWeights(rows.length),
  };
}

function meanWeights(count: number): Tensor {
  return tensor("f64", [count], new Float64Array(count).fill(1 / count));
}
