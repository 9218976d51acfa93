import type { Adapter } from "../adapter/adapter.ts";
import { type MergeBase, type MergedWeight, planMerge } from "../adapter/merge.ts";
import { unmergeWeight } from "../adapter/merge-steps.ts";
import type { WeightSource } from "../backends/backend.ts";
import { faultsError } from "../formats/faults.ts";
import { convert, toFloat32 } from "../tensor/convert.ts";
import type { DType } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Checkpoint } from "./open-checkpoint.ts";

/** How far a weight that was unmerged can be, and is, from the base's. */
export interface UnmergeError {
  readonly weight: string;
  /** Two roundings to the dtype: of the merged weight and of what is taken from it. */
  readonly bound: number;
  /** Largest difference from the base, where there is one to compare with. */
  readonly difference?: number;
  /** Elements that differ from the base's. */
  readonly changed?: number;
}

/** A merged model without its adapter; `errors` fills as weights are read. */
export interface UnmergedCheckpoint extends Checkpoint {
  readonly errors: readonly UnmergeError[];
}

/** Bits of a mantissa, the hidden one included. */
const BITS: Partial<Record<DType, number>> = { f32: 24, f16: 11, bf16: 8 };

/**
 * `merged` with `adapter` taken out of its weights, each rounded to the dtype it has.
 * @param base the original, to compare with
 * @throws LorikeetError `cannot-unmerge` listing what a merge does not keep (DoRA's norms, weights that were
 * replaced); `adapter-mismatch`
 */
export function unmergedCheckpoint(
  merged: Checkpoint,
  adapter: Adapter,
  { layers, head }: Pick<MergeBase, "layers" | "head">,
  base?: WeightSource,
): UnmergedCheckpoint {
  const { weights } = merged;
  const plan = planMerge(adapter, { layers, head, names: weights.names, shapeOf: (name) => weights.get(name).shape }); // prettier-ignore
  return { ...merged, ...unmergedWeights(weights, plan.weights, base) };
}

/** `weights` without what `plan` added to them; `errors` fills as they are read. @throws LorikeetError `cannot-unmerge` */
export function unmergedWeights(
  weights: WeightSource,
  plan: ReadonlyMap<string, MergedWeight>,
  base: WeightSource | undefined,
): { weights: WeightSource; errors: readonly UnmergeError[] } {
  const lost = [...plan].flatMap(([name, { steps }]) => {
    if (steps.some(({ kind }) => kind === "replace" || kind === "rows"))
      return [`${name} was replaced`];
    const isDora = steps.some((step) => step.kind === "lora" && step.update.magnitude);
    return isDora ? [`${name} was scaled by DoRA`] : [];
  });
  if (lost.length > 0)
    throw faultsError("cannot-unmerge", "an adapter that was only added to the base", lost, "What a merge replaces is gone: keep the base model."); // prettier-ignore
  const errors: UnmergeError[] = [];
  const read = async (name: string): Promise<Tensor> => {
    const stored = await weights.read(name);
    const { steps } = plan.get(name) as MergedWeight;
    if (steps.length === 0) return stored;
    const exact = unmergeWeight(stored, steps);
    const result = convert(exact, stored.dtype);
    // several adapters: f32 sums between them, when merged and now
    const between = 2 * (steps.length - 1) * rounding(exact);
    const bound = rounding(stored) + rounding(result) + between;
    const original = base && (await base.read(name));
    errors.push({ weight: name, bound, ...(original && compare(result, original)) });
    return result;
  };
  return { errors, weights: { ...weights, read } };
}

/** Half the distance between neighbours at the largest value. */
function rounding(values: Tensor): number {
  const largest = toFloat32(values).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return largest === 0 ? 0 : 2 ** (Math.floor(Math.log2(largest)) - (BITS[values.dtype] ?? 24));
}

function compare(result: Tensor, original: Tensor): { difference: number; changed: number } {
  const [got, want] = [toFloat32(result), toFloat32(original)];
  let [difference, changed] = [0, 0];
  for (let i = 0; i < got.length; i++) {
    const distance = Math.abs(got[i]! - want[i]!);
    difference = Math.max(difference, distance);
    if (distance > 0) changed++;
  }
  return { difference, changed };
}
