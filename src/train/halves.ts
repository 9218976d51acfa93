import type { Pair, Tensors } from "../backends/backend.ts";
import { hash32 } from "../tensor/random.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";

const BY_ROW: readonly string[] = ["input_ids", "position_ids", "segments", "token_type_ids"];
const BY_TARGET: readonly string[] = ["targets", "loss_weights"];
const LOSS_ROWS = "loss_rows";
const SEED = "dropout_seed";
const KNOWN: ReadonlySet<string> = new Set([...BY_ROW, ...BY_TARGET, LOSS_ROWS, SEED]);
/** Loss rows of a half are a multiple of the whole's divided by this. */
const STEPS = 8;

/**
 * Two batches of half the rows whose losses and gradients add up to those of `batch`, of one shape and about as many
 * targets; undefined where its rows are odd in number or hold other things than texts. What follows from the values
 * is the same in each run.
 */
export function halvesOf(batch: Tensors): Pair<Tensors> | undefined {
  const ids = batch["input_ids"];
  const rows = ids?.shape[0] ?? 0;
  if (rows < 2 || rows % 2 === 1 || !Object.keys(batch).every((name) => KNOWN.has(name)))
    return undefined;
  const targets = batch[LOSS_ROWS] ? targetsByRow(batch, rows) : undefined;
  const sides = balanced(
    targets?.map((places) => places.length) ?? new Array<number>(rows).fill(1),
  );
  const most = targets && halfSize(batch[LOSS_ROWS]!.shape[0]!, targets, sides);
  const half = (side: readonly number[], number: number): Tensors => {
    const byRow = targets ? BY_ROW : [...BY_ROW, ...BY_TARGET];
    const own = byRow.flatMap((name) =>
      batch[name] ? [[name, gathered(batch[name], side, rows)] as const] : [],
    );
    const seed = batch[SEED];
    return {
      ...Object.fromEntries(own),
      ...(targets && targetsOf(batch, side, { targets, size: most! })),
      ...(seed && { [SEED]: forkedSeed(seed, number) }),
    };
  };
  return [half(sides[0], 0), half(sides[1], 1)];
}

/** Places in `loss_rows` of what counts, by row of the batch. */
function targetsByRow(batch: Tensors, rows: number): number[][] {
  const length = batch["input_ids"]!.shape[1]!;
  const weights = batch["loss_weights"]!.data as Float32Array;
  const found = Array.from({ length: rows }, (): number[] => []);
  for (const [place, at] of (batch[LOSS_ROWS]!.data as BigInt64Array).entries())
    if (weights[place] !== 0) found[Math.floor(Number(at) / length)]!.push(place);
  return found;
}

/** Rows of each half, in order: the largest first, each goes to the half that has less and room. */
function balanced(sizes: readonly number[]): Pair<number[]> {
  const sides: Pair<number[]> = [[], []];
  const sums = [0, 0];
  const order = sizes.map((_, row) => row).sort((a, b) => sizes[b]! - sizes[a]! || a - b);
  for (const row of order) {
    const isFull = sides.map((side) => side.length === sizes.length / 2);
    const side = isFull[0] || (!isFull[1] && sums[1]! < sums[0]!) ? 1 : 0;
    sides[side].push(row);
    sums[side]! += sizes[row]!;
  }
  for (const side of sides) side.sort((a, b) => a - b);
  return sides;
}

/**
 * Loss rows that a half is padded to: half of the whole's where all of it counts, else more, so that most batches of
 * one size have halves of one size.
 */
function halfSize(whole: number, targets: number[][], sides: Pair<number[]>): number {
  const counts = sides.map((side) => side.reduce((sum, row) => sum + targets[row]!.length, 0));
  const need = Math.max(...counts);
  if (2 * need === whole) return need;
  const step = Math.ceil(whole / STEPS);
  return Math.min(whole, step * Math.max(STEPS / 2 + 1, Math.ceil(need / step)));
}

function targetsOf(
  batch: Tensors,
  side: readonly number[],
  { targets, size }: { targets: number[][]; size: number },
): Tensors {
  const length = batch["input_ids"]!.shape[1]!;
  const places = side.flatMap((row) => targets[row]!);
  const whole = batch[LOSS_ROWS]!.data as BigInt64Array;
  const ids = batch["targets"]!.data as BigInt64Array;
  const [rows, own, weights] = [
    new BigInt64Array(size),
    new BigInt64Array(size),
    new Float32Array(size),
  ];
  const numberOf = new Map(side.map((row, number) => [row, number]));
  for (const [i, place] of places.entries()) {
    const at = Number(whole[place]);
    rows[i] = BigInt(numberOf.get(Math.floor(at / length))! * length + (at % length));
    own[i] = ids[place]!;
    weights[i] = batch["loss_weights"]!.data[place] as number;
  }
  return {
    [LOSS_ROWS]: tensor("i64", [size], rows),
    targets: tensor("i64", [size], own),
    loss_weights: tensor("f32", [size], weights),
  };
}

/** `side` of the rows of `x`. */
function gathered({ dtype, shape, data }: Tensor, side: readonly number[], rows: number): Tensor {
  const size = data.length / rows;
  const picked = data.slice(0, side.length * size);
  for (const [i, row] of side.entries())
    picked.set(data.subarray(row * size, (row + 1) * size) as never, i * size);
  return { dtype, shape: [side.length, ...shape.slice(1)], data: picked };
}

/** Halves drop different elements. */
function forkedSeed({ data }: Tensor, number: number): Tensor {
  const seed = hash32(Number(data[0]) >>> 0, number) >>> 1;
  return tensor("i64", [], BigInt64Array.of(BigInt(seed)));
}
