import { type Tensor, tensor } from "../tensor/tensor.ts";
import type { Batch } from "./batch.ts";
import { planEpoch, planEvaluation } from "./epoch.ts";
import type { LabelledExample } from "./labelled.ts";
import { formatPlace } from "./read/source-row.ts";
import { type DataLoader, windowLoader } from "./windows.ts";

/** How texts of classes become batches. */
export interface LabelledShape {
  /** Rows of every batch, B. */
  readonly batchSize: number;
  readonly maxLength: number;
  readonly padId: number;
}

/** Lengths are rounded up to multiples of this, so that few programs are compiled. */
const MULTIPLE = 32;

/** A loader of `examples`, pass after pass in another order. */
export function labelledLoader(
  examples: readonly LabelledExample[],
  options: LabelledShape & { readonly accumulation: number; readonly seed: number },
): DataLoader {
  const { accumulation, seed, batchSize } = options;
  const lengths = examples.map(({ ids }) => ids.length);
  const all = Uint32Array.from(examples, (_, i) => i);
  const keys = examples.reduce((sum, { key }) => (Math.imul(sum, 31) + key) >>> 0, 0);
  return windowLoader({
    planOf: (epoch) => planEpoch(all, lengths, { ...options, packing: false, seed }, epoch),
    accumulation,
    fingerprint: `${keys.toString(16)}-${examples.length}-${batchSize}x${accumulation}-${seed}`,
    read: (plan) => {
      const rows = plan.map((batch) => batch.flat().map((i) => examples[i]!));
      const weight = 1 / rows.flat().length;
      const tokens = rows.flat().reduce((sum, { ids }) => sum + ids.length, 0);
      return Promise.resolve({
        batches: rows.map((row) => collate(row, options, weight)),
        tokens,
        rows: rows.map((batch) => batch.map(({ place }) => formatPlace(place))),
      });
    },
  });
}

/** All of `examples` once; the loss weights of all batches together add up to 1. */
export async function* labelledBatches(
  examples: readonly LabelledExample[],
  shape: LabelledShape,
): AsyncGenerator<Batch> {
  const lengths = examples.map(({ ids }) => ids.length);
  const all = Uint32Array.from(examples, (_, i) => i);
  for (const batch of planEvaluation(all, lengths, { ...shape, packing: false })) {
    await Promise.resolve();
    yield collate(
      batch.flat().map((i) => examples[i]!),
      shape,
      1 / examples.length,
    );
  }
}

/**
 * A batch as an encoder's step reads it, B rows of T tokens: `input_ids`, `position_ids`, `segments` (1 for tokens, 0 for
 * padding) and `token_type_ids` (0), i64 (B, T); `targets` i64 (B); `loss_weights` f32 (B), 0 for rows that only fill up.
 */
function collate(
  rows: readonly LabelledExample[],
  { batchSize: B, maxLength, padId }: LabelledShape,
  weight: number,
): Batch {
  const longest = Math.max(...rows.map(({ ids }) => ids.length));
  const T = Math.min(maxLength, Math.ceil(longest / MULTIPLE) * MULTIPLE);
  const cells = (value: (b: number, t: number) => number): Tensor =>
    tensor(
      "i64",
      [B, T],
      BigInt64Array.from({ length: B * T }, (_, i) => BigInt(value(Math.floor(i / T), i % T))),
    );
  // a row that fills up has one token, so that attention sees something
  const lengthOf = (b: number): number => rows[b]?.ids.length ?? 1;
  const targets = BigInt64Array.from({ length: B }, (_, b) => BigInt(rows[b]?.label ?? 0));
  const weights = Float32Array.from({ length: B }, (_, b) => (b < rows.length ? weight : 0));
  return {
    input_ids: cells((b, t) => rows[b]?.ids[t] ?? padId),
    position_ids: cells((_, t) => t),
    segments: cells((b, t) => (t < lengthOf(b) ? 1 : 0)),
    token_type_ids: cells(() => 0),
    targets: tensor("i64", [B], targets),
    loss_weights: tensor("f32", [B], weights),
  };
}
