import { Random } from "../tensor/random.ts";
import { bestFitDecreasing } from "./pack.ts";

/** Numbers of the samples in one row of a batch: one, or several that are packed. */
export type PackedRow = readonly number[];

/** The batches of a pass over the data, each at most `batchSize` rows. */
export type BatchPlan = readonly (readonly PackedRow[])[];

/** How samples are put into batches. */
export interface PlanOptions {
  readonly batchSize: number;
  /** Tokens that a packed row holds. */
  readonly maxLength: number;
  readonly packing: boolean;
  readonly seed: number;
}

/** Samples that are packed together: enough for full rows, few enough to stay shuffled. */
const PACKED_TOGETHER = 4096;
/** Batches that are sorted by length together. */
const SORTED_TOGETHER = 50;

/**
 * The batches of pass number `epoch` (from 0) over `samples`, whose token counts are `lengths`: a pure function of its
 * arguments, so that any place in any pass can be found again. Samples are shuffled; then rows are packed, or samples
 * of like length are put into one batch. The first batch of all has the longest row, to run out of memory at once.
 */
export function planEpoch(
  samples: ArrayLike<number>,
  lengths: ArrayLike<number>,
  options: PlanOptions,
  epoch: number,
): BatchPlan {
  const random = new Random(options.seed).fork(`epoch ${epoch}`);
  const order = random.shuffle(Array.from(samples));
  if (options.packing) {
    const rows = inParts(order, PACKED_TOGETHER).flatMap((part) =>
      packRows(part, lengths, options),
    );
    return inParts(random.shuffle(rows), options.batchSize);
  }
  const batches = inParts(order, options.batchSize * SORTED_TOGETHER).flatMap((part) =>
    lengthGroups(part, lengths, options.batchSize),
  );
  const shuffled = random.shuffle(batches);
  return epoch === 0 ? longestFirst(shuffled, lengths) : shuffled;
}

/** Batches of `samples` in a fixed order, longest first: for evaluation. */
export function planEvaluation(
  samples: ArrayLike<number>,
  lengths: ArrayLike<number>,
  { batchSize, packing, maxLength }: Omit<PlanOptions, "seed">,
): BatchPlan {
  const order = Array.from(samples);
  if (!packing) return lengthGroups(order, lengths, batchSize);
  const rows = inParts(order, PACKED_TOGETHER).flatMap((part) =>
    packRows(part, lengths, { maxLength }),
  );
  return inParts(rows, batchSize);
}

function packRows(
  part: readonly number[],
  lengths: ArrayLike<number>,
  { maxLength }: { maxLength: number },
): number[][] {
  const bins = bestFitDecreasing(
    part.map((sample) => lengths[sample]!),
    maxLength,
  );
  return bins.map((bin) => bin.map((item) => part[item]!));
}

function lengthGroups(
  part: readonly number[],
  lengths: ArrayLike<number>,
  batchSize: number,
): PackedRow[][] {
  const sorted = [...part].sort((a, b) => lengths[b]! - lengths[a]!);
  return inParts(
    sorted.map((sample) => [sample]),
    batchSize,
  );
}

function longestFirst(
  batches: readonly (readonly PackedRow[])[],
  lengths: ArrayLike<number>,
): BatchPlan {
  let longest = 0;
  const first = (index: number): number => lengths[batches[index]![0]![0]!]!;
  for (let i = 1; i < batches.length; i++) if (first(i) > first(longest)) longest = i;
  return [...batches.slice(longest, longest + 1), ...batches.toSpliced(longest, 1)];
}

function inParts<T>(items: readonly T[], size: number): T[][] {
  const parts: T[][] = [];
  for (let i = 0; i < items.length; i += size) parts.push(items.slice(i, i + size));
  return parts;
}
