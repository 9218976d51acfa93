import { LorikeetError } from "../errors.ts";
import type { Batch } from "./batch.ts";

/** The batches of one optimizer step; their loss weights add up to 1. */
export interface DataWindow {
  readonly batches: readonly Batch[];
  /** Tokens in the batches, without padding; of images: how many. */
  readonly tokens: number;
  /** Names of the rows in each batch, for errors. */
  readonly rows?: readonly (readonly string[])[];
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

/** How a pass over the data is cut into windows. */
export interface WindowPlan<Rows> {
  /** What pass number `epoch` (from 0) reads, a batch an element: the same whenever it is asked for. */
  readonly planOf: (epoch: number) => readonly Rows[];
  /** Batches a window. */
  readonly accumulation: number;
  readonly fingerprint: string;
  /** Reads the batches of one window. */
  readonly read: (
    plan: readonly Rows[],
    place: { readonly epoch: number; readonly window: number },
  ) => Promise<Pick<DataWindow, "batches" | "tokens" | "rows">>;
}

/** A loader that walks through `plan`. */
export function windowLoader<Rows>(plan: WindowPlan<Rows>): DataLoader {
  const { accumulation, fingerprint } = plan;
  let planned: { epoch: number; rows: readonly Rows[] } | undefined;
  const planOf = (epoch: number): readonly Rows[] => {
    if (planned?.epoch !== epoch) planned = { epoch, rows: plan.planOf(epoch) };
    return planned.rows;
  };
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
          const rows = planOf(epoch).slice(first, first + accumulation);
          yield {
            ...(await plan.read(rows, { epoch, window })),
            epoch: epoch + (window + 1) / count,
            cursor: { ...next, fingerprint },
          };
        }
      }
    },
  };
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
