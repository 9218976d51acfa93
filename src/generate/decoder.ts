import type { Engine, Program, Tensors } from "../backends/backend.ts";
import { keptPrograms } from "../backends/kept-programs.ts";
import type { Graph } from "../ir/graph.ts";
import { toFloat32 } from "../tensor/convert.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";

/** Sizes that a decoding graph is made for: new tokens a row, and cache slots before them (0: none). */
export interface DecodeShape {
  readonly batch: number;
  readonly length: number;
  readonly cacheLength: number;
}

/** Runs a model token by token with a key/value cache that lives in the engine. */
export interface Decoder {
  /** Starts anew with `rows` of prompt ids; gives the logits (V) after each row. */
  start(rows: readonly (readonly number[])[]): Promise<Float32Array[]>;
  /** Appends one token to each row that goes on (undefined: it has ended); gives the logits after it. */
  next(ids: readonly (number | undefined)[]): Promise<Float32Array[]>;
  dispose(): Promise<void>;
}

/** What a decoder may be told besides its graphs. */
interface DecoderOptions {
  /** Tokens that the model has positions for; prompts are not padded beyond. */
  readonly context?: number;
  /** Feeds of each run besides the decoder's own. */
  readonly more?: () => Tensors;
}

/** Marks a cache slot that holds nothing. */
const UNUSED = -1;
const SMALLEST_BUCKET = 64;

/**
 * A decoder on `engine`. Prompts are padded to lengths of 64, 128, 256 …, caches grow in the same steps, and a
 * program is compiled once for each.
 * @param graphFor graph with output `logits` (B, V), taken after the positions `last_rows` (B)
 */
export function createDecoder(
  engine: Engine,
  graphFor: (shape: DecodeShape) => Graph,
  { context = Infinity, more = () => ({}) }: DecoderOptions = {},
): Decoder {
  const programs = keptPrograms();
  let cache = { used: 0, lengths: [] as number[], prompts: [] as number[], padded: 0 };

  const programFor = (shape: DecodeShape): Promise<Program> =>
    programs.get(JSON.stringify(shape), () => engine.compile(graphFor(shape)));

  async function start(rows: readonly (readonly number[])[]): Promise<Float32Array[]> {
    const lengths = rows.map((row) => row.length);
    const [batch, length] = [rows.length, Math.min(context, bucketOf(Math.max(...lengths)))];
    const program = await programFor({ batch, length, cacheLength: 0 });
    const { logits } = await program.run({
      ...more(),
      input_ids: grid(batch, length, (b, t) => rows[b]![t] ?? 0),
      position_ids: grid(batch, length, (_, t) => t),
      last_rows: grid(1, batch, (_, b) => b * length + lengths[b]! - 1, [batch]),
      cache_offset: grid(1, 1, () => 0, []),
    });
    const padded = Math.max(...lengths);
    cache = { used: padded, lengths: [...lengths], prompts: lengths, padded };
    return rowsOf(logits!);
  }

  async function next(ids: readonly (number | undefined)[]): Promise<Float32Array[]> {
    const [batch, cacheLength] = [ids.length, bucketOf(cache.used)];
    const { used, lengths, prompts, padded } = cache;
    const isUsed = (b: number, slot: number): boolean =>
      slot < prompts[b]! || (slot >= padded && slot < used);
    const isOver = (b: number): boolean => ids[b] === undefined;
    const program = await programFor({ batch, length: 1, cacheLength });
    const { logits } = await program.run({
      ...more(),
      input_ids: grid(batch, 1, (b) => ids[b] ?? 0),
      position_ids: grid(batch, 1, (b) => (isOver(b) ? 0 : lengths[b]!)),
      segments: grid(batch, 1, () => 0),
      cache_segments: grid(batch, cacheLength, (b, slot) => (isUsed(b, slot) ? 0 : UNUSED)),
      cache_positions: grid(batch, cacheLength, (b, slot) =>
        slot < padded ? slot : prompts[b]! + slot - padded,
      ),
      last_rows: grid(1, batch, (_, b) => b, [batch]),
      cache_offset: grid(1, 1, () => used, []),
    });
    cache = { ...cache, used: used + 1, lengths: lengths.map((length) => length + 1) };
    return rowsOf(logits!);
  }

  return { start, next, dispose: programs.dispose };
}

/** The smallest of 64, 128, 256 … that is at least `size`. */
function bucketOf(size: number): number {
  return Math.max(SMALLEST_BUCKET, 2 ** Math.ceil(Math.log2(size)));
}

function grid(
  rows: number,
  columns: number,
  cell: (row: number, column: number) => number,
  shape: readonly number[] = [rows, columns],
): Tensor {
  const at = (i: number): bigint => BigInt(cell(Math.floor(i / columns), i % columns));
  return tensor(
    "i64",
    shape,
    BigInt64Array.from({ length: rows * columns }, (_, i) => at(i)),
  );
}

function rowsOf(logits: Tensor): Float32Array[] {
  const [batch, V] = logits.shape as [number, number];
  const values = toFloat32(logits);
  return Array.from({ length: batch }, (_, b) => values.subarray(b * V, (b + 1) * V));
}
