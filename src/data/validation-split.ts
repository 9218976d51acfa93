import { LorikeetError } from "../errors.ts";
import { hash32 } from "../tensor/random.ts";
import type { Row } from "./rows/row.ts";

/** Numbers of the samples to train on and of those held out. */
export interface Split {
  readonly train: Uint32Array;
  readonly validation: Uint32Array;
}

/** A 32-bit key of a row's content (not of its place), which decides whether it is held out. */
export function rowKey(row: Row, seed: number): number {
  const text = JSON.stringify(row);
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash32(seed, hash >>> 0);
}

/**
 * Holds out the share `fraction` of the samples with the smallest keys: the same rows whatever their order, and equal
 * rows on one side.
 * @throws LorikeetError `data-split` when nothing would be left to train on, or to validate on
 */
export function splitByKey(keys: Uint32Array, fraction: number): Split {
  const all = Uint32Array.from(keys, (_, i) => i);
  if (fraction === 0) return { train: all, validation: new Uint32Array(0) };
  const count = Math.max(1, Math.round(keys.length * fraction));
  const limit = keys.toSorted()[count - 1];
  const isHeldOut = (sample: number): boolean => limit !== undefined && keys[sample]! <= limit;
  const split = {
    train: all.filter((sample) => !isHeldOut(sample)),
    validation: all.filter(isHeldOut),
  };
  if (split.train.length > 0 && split.validation.length > 0) return split;
  throw new LorikeetError(
    "data-split",
    `Expected validation_split ${fraction} to leave samples on both sides, got ${split.train.length} to train on and ${split.validation.length} to validate on of ${keys.length}`,
    {
      hint: "Give more (different) rows, a smaller validation_split, or evaluation data of its own.",
    },
  );
}
