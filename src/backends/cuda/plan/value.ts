/** @file What a plan is made of: values in device memory and the units that compute them. */
import type { Shape } from "../../../tensor/shape.ts";

/** How an element is stored on the device. */
export type Storage = "bf16" | "f16" | "f32" | "i32" | "u8";

/** Bytes of a stored element. */
export const STORAGE_BYTES: Readonly<Record<Storage, number>> = {
  bf16: 2,
  f16: 2,
  f32: 4,
  i32: 4,
  u8: 1,
};

/** A piece of device memory. Its address is known once the plan is laid out (or at once, for weights and state). */
export interface Region {
  readonly bytes: number;
  address: number;
  /** Laid out by lifetime in the arena; otherwise it has its address already. */
  readonly isPlanned: boolean;
}

/**
 * A stored value: element i (row-major in `shape`) is at `offset + floor(i / cols) · ld + i mod cols` of `region`,
 * so a matrix may be a column range of a wider one.
 */
export interface Value {
  readonly shape: Shape;
  readonly size: number;
  readonly storage: Storage;
  region: Region;
  offset: number;
  cols: number;
  ld: number;
  /** Factor by which the stored numbers are larger than the value (adapters that carry their own scale). */
  readonly factor: number;
}

/** One step of a program: some launches that read and write values. */
export interface Unit {
  readonly name: string;
  readonly reads: readonly Value[];
  readonly writes: readonly Value[];
  /** Values that exist during this unit only. */
  readonly scratch: readonly Value[];
  /** Runs as soon as its inputs exist, to free them (gradients of parameters). */
  readonly isEager?: boolean;
  /** Runs only when something else needs it: values that are computed again for the backward pass. */
  readonly isLate?: boolean;
  /** Called after addresses are known, before the first run: may compile, time and choose. */
  prepare?(): void;
  /** Puts the launches on the stream. */
  enqueue(): void;
}

/** A new contiguous value of `shape` in a planned region of its own. */
export function newValue(shape: Shape, storage: Storage): Value {
  let size = 1;
  for (const dim of shape) size *= dim;
  const region = { bytes: size * STORAGE_BYTES[storage], address: 0, isPlanned: true };
  return { shape, size, storage, region, offset: 0, cols: size, ld: size, factor: 1 };
}

/** Address of the first element. */
export function addressOf(value: Value): number {
  return value.region.address + value.offset * STORAGE_BYTES[value.storage];
}

/** Whether the elements follow each other without gaps. */
export function isDense({ cols, ld, size }: Value): boolean {
  return cols === ld || cols === size;
}

/** Elements between rows when the value is read as a matrix of `columns`, or undefined when it is not one. */
export function rowStride(value: Value, columns: number): number | undefined {
  if (value.cols === columns) return value.ld; // a single row may have room behind it, too
  return isDense(value) ? columns : undefined;
}
