import { type Batch, type BatchShape, collate } from "./batch.ts";
import { type Bucket, chooseBuckets } from "./buckets.ts";
import { type BatchPlan, planEpoch, planEvaluation } from "./epoch.ts";
import type { ExampleStore } from "./example-store.ts";
import { type DataLoader, windowLoader } from "./windows.ts";

/** How samples become windows. */
export interface LoaderOptions extends BatchShape {
  /** Batches a window. */
  readonly accumulation: number;
  readonly seed: number;
}

/** A loader of the samples of `store` that `samples` numbers. */
export function createLoader(
  store: ExampleStore,
  samples: ArrayLike<number>,
  options: LoaderOptions,
): DataLoader {
  const { batchSize, accumulation, packing, seed } = options;
  const planOf = (epoch: number): BatchPlan => planEpoch(samples, store.lengths, options, epoch);
  const shape = { ...options, buckets: bucketsOf([0, 1, 2].flatMap(planOf), store, options) };
  return windowLoader({
    planOf,
    accumulation,
    fingerprint: `${store.fingerprint}-${samples.length}-${batchSize}x${accumulation}${packing ? "p" : ""}-${seed}`,
    read: async (plan) => ({
      batches: await collateAll(store, plan, shape),
      tokens: sumOf(plan, store.lengths),
      rows: plan.map((batch) => batch.flat().map((sample) => store.nameOf(sample))),
    }),
  });
}

/** All of `samples` once, in a fixed order; the loss weights of all batches together add up to 1. */
export async function* evaluationBatches(
  store: ExampleStore,
  samples: ArrayLike<number>,
  shape: BatchShape,
): AsyncGenerator<Batch> {
  const plan = planEvaluation(samples, store.lengths, shape);
  const weight = 1 / sumOf(plan, store.supervised);
  const buckets = bucketsOf(plan, store, shape);
  for (const rows of plan) {
    const examples = await readRows(store, rows);
    yield collate(examples, { ...shape, buckets }, weight);
  }
}

/** Loss rows of a bucket are a multiple of this, so that the batches of later passes fit too. */
const ROW_MULTIPLE = 32;

/** The sizes that the batches of `plan` are padded to. */
function bucketsOf(plan: BatchPlan, store: ExampleStore, shape: BatchShape): Bucket[] {
  const needs = plan.map((rows) => ({
    length: Math.max(...rows.map((row) => sumOf([[row]], store.lengths))),
    rows: ROW_MULTIPLE * Math.ceil(sumOf([rows], store.supervised) / ROW_MULTIPLE),
  }));
  return chooseBuckets(needs, { multiple: shape.lengthMultiple ?? 64, maxLength: shape.maxLength });
}

async function collateAll(
  store: ExampleStore,
  plan: BatchPlan,
  shape: BatchShape,
): Promise<Batch[]> {
  const weight = 1 / sumOf(plan, store.supervised);
  return Promise.all(plan.map(async (rows) => collate(await readRows(store, rows), shape, weight)));
}

function readRows(
  store: ExampleStore,
  rows: BatchPlan[number],
): Promise<Awaited<ReturnType<ExampleStore["read"]>>[][]> {
  return Promise.all(rows.map((row) => Promise.all(row.map((sample) => store.read(sample)))));
}

function sumOf(plan: BatchPlan, counts: ArrayLike<number>): number {
  let sum = 0;
  for (const rows of plan) for (const row of rows) for (const sample of row) sum += counts[sample]!;
  return sum;
}
