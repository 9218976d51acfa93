import { LorikeetError } from "../errors.ts";
import { type Batch, type BatchShape, collate } from "./batch.ts";
import { type Bucket, chooseBuckets } from "./buckets.ts";
import { type BatchPlan, planEpoch, planEvaluation } from "./epoch.ts";
import type { ExampleStore } from "./example-store.ts";

/** The batches of one optimizer step; their loss weights add up to 1. */
export interface DataWindow {
  readonly batches: readonly Batch[];
  /** Tokens in the batches, without padding. */
  readonly tokens: number;
  /** Passes over the data at the end of this window; 1.5 is the middle of the second. */
  readonly epoch: number;
  /** Where the data continues after this window. */
  readonly cursor: DataCursor;
}

/** A place in the data: JSON, to be kept with a run's state. */
export interface DataCursor {
  /** Passes that are done. */
  readonly epoch: number;
  /** Windows of the current pass that are done. */
  readonly window: number;
  /** Of the samples and of how they are put into windows; others can't be continued. */
  readonly fingerprint: string;
}

/** How samples become windows. */
export interface LoaderOptions extends BatchShape {
  /** Batches a window. */
  readonly accumulation: number;
  readonly seed: number;
}

/** Gives samples as windows, pass after pass, from any place. */
export interface DataLoader {
  /** Windows in `epochs` passes (which need not be whole). */
  windowsIn(epochs: number): number;
  /**
   * Windows from `cursor` (undefined: the beginning) on, without end.
   * @throws LorikeetError `data-changed` when the cursor is of other samples
   */
  windows(cursor?: unknown): AsyncGenerator<DataWindow>;
}

/** A loader of the samples of `store` that `samples` numbers. */
export function createLoader(
  store: ExampleStore,
  samples: ArrayLike<number>,
  options: LoaderOptions,
): DataLoader {
  let planned: { epoch: number; plan: BatchPlan } | undefined;
  const planOf = (epoch: number): BatchPlan => {
    if (planned?.epoch !== epoch)
      planned = { epoch, plan: planEpoch(samples, store.lengths, options, epoch) };
    return planned.plan;
  };
  const { batchSize, accumulation, packing, seed } = options;
  const ahead = [0, 1, 2].flatMap((epoch) => planEpoch(samples, store.lengths, options, epoch));
  const shape = { ...options, buckets: bucketsOf(ahead, store, options) };
  const fingerprint = `${store.fingerprint}-${samples.length}-${batchSize}x${accumulation}${packing ? "p" : ""}-${seed}`;
  const windowsOf = (epoch: number): number => Math.ceil(planOf(epoch).length / accumulation);

  return {
    windowsIn(epochs) {
      let windows = 0;
      for (let epoch = 0; epoch < epochs; epoch++)
        windows += Math.ceil(windowsOf(epoch) * Math.min(1, epochs - epoch) - 1e-9);
      return windows;
    },
    async *windows(cursor) {
      const start = parseCursor(cursor, fingerprint);
      for (let epoch = start.epoch; ; epoch++) {
        const count = windowsOf(epoch);
        for (let window = epoch === start.epoch ? start.window : 0; window < count; window++) {
          const isLast = window + 1 === count;
          const next = isLast ? { epoch: epoch + 1, window: 0 } : { epoch, window: window + 1 };
          const first = window * accumulation;
          const plan = planOf(epoch).slice(first, first + accumulation);
          yield {
            batches: await collateAll(store, plan, shape),
            tokens: sumOf(plan, store.lengths),
            epoch: epoch + (window + 1) / count,
            cursor: { ...next, fingerprint },
          };
        }
      }
    },
  };
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

function parseCursor(cursor: unknown, fingerprint: string): DataCursor {
  if (cursor === undefined || cursor === null) return { epoch: 0, window: 0, fingerprint };
  const given = cursor as Partial<DataCursor>;
  if (given.fingerprint !== fingerprint)
    throw new LorikeetError(
      "data-changed",
      `Expected the data that the run began with (${given.fingerprint}), got other samples or batches (${fingerprint})`,
      {
        hint: "Continue with the same data files, tokenizer, batch sizes, seed and data settings, or start a new run.",
      },
    );
  return { epoch: given.epoch ?? 0, window: given.window ?? 0, fingerprint };
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
