import { LorikeetError } from "../errors.ts";
import { BYTES } from "../tensor/dtype.ts";
import { sizeOf } from "../tensor/shape.ts";
import { compareCodePoints } from "./code-points.ts";
import { faultsError, quoteName } from "./faults.ts";
import type { TensorSpec } from "./safetensors-write.ts";
import { duplicateKeys } from "./strict-json.ts";

const HINT = "Fetch the index again, or write it anew from the shards.";

/**
 * File name of each tensor, from the text of a `*.safetensors.index.json` (or `*.bin.index.json`) called `name`.
 * Shards must be plain file names: an index cannot point outside its folder.
 * @throws LorikeetError `corrupt-index` with all faults
 */
export function parseShardIndex(text: string, name = "the index"): ReadonlyMap<string, string> {
  const expected = `${name} to be the index of a sharded checkpoint`;
  let index: unknown;
  try {
    index = JSON.parse(text);
  } catch (cause) {
    throw new LorikeetError("corrupt-index", `Expected ${expected}, it is not JSON`, {
      hint: HINT,
      cause,
    });
  }
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map))
    throw faultsError("corrupt-index", expected, ['it has no object "weight_map"'], HINT);
  const faults = duplicateKeys(text).map((key) => `key ${quoteName(key)} occurs twice`);
  for (const [tensor, file] of Object.entries(map)) {
    if (typeof file !== "string" || !/^[^/\\\0:]+$/.test(file) || file === "." || file === "..")
      faults.push(`tensor ${quoteName(tensor)} is not in a file of the same folder`);
  }
  if (faults.length > 0) throw faultsError("corrupt-index", expected, faults, HINT);
  return new Map(Object.entries(map as Record<string, string>));
}

/** The text of an index, as transformers writes it: `weightMap` is the file name of each tensor. */
export function formatShardIndex(
  weightMap: ReadonlyMap<string, string>,
  totalSize: number,
): string {
  const sorted = [...weightMap].sort(([a], [b]) => compareCodePoints(a, b));
  const index = { metadata: { total_size: totalSize }, weight_map: Object.fromEntries(sorted) };
  return `${JSON.stringify(index, undefined, 2)}\n`;
}

/** One file of a sharded checkpoint. */
export interface Shard {
  readonly file: string;
  readonly tensors: readonly TensorSpec[];
}

/**
 * Splits tensors, in the order given, into files of at most `maxBytes` (a larger tensor gets its own):
 * `model.safetensors` when one is enough, else `model-00001-of-00003.safetensors`.
 */
export function planShards(specs: Iterable<TensorSpec>, maxBytes: number, stem = "model"): Shard[] {
  const groups: TensorSpec[][] = [];
  let room = 0;
  for (const spec of specs) {
    const bytes = sizeOf(spec.shape) * BYTES[spec.dtype];
    if (groups.length === 0 || bytes > room) {
      groups.push([]);
      room = maxBytes;
    }
    groups.at(-1)!.push(spec);
    room -= bytes;
  }
  if (groups.length <= 1) return [{ file: `${stem}.safetensors`, tensors: groups[0] ?? [] }];
  const digits = (value: number): string => String(value).padStart(5, "0");
  return groups.map((tensors, i) => {
    return { file: `${stem}-${digits(i + 1)}-of-${digits(groups.length)}.safetensors`, tensors };
  });
}
