/** @file Ways to make one tensor of several: weighted sums of pruned values, with or without a vote on signs. */

/** How tensors are mixed. https://arxiv.org/abs/2306.01708 (ties), https://arxiv.org/abs/2311.03099 (dare) */
export interface Mix {
  /** What is set to zero first: nothing, the smallest values, or random ones (the others are divided by the density). */
  readonly prune: "none" | "magnitude" | "random";
  /** Only values that agree with the majority's sign count, and their sum is divided by their number. */
  readonly electsSign: boolean;
}

/** Settings of `mixTensors`. */
export interface MixOptions extends Mix {
  /** Share of values that pruning keeps. */
  readonly density: number;
  /** Whose sign wins: that of the sum of values, or of the sum of signs. */
  readonly majoritySign: "total" | "frequency";
  /** Whether element `i` of tensor `t` is kept by random pruning. */
  readonly keeps: (t: number, i: number) => boolean;
}

/** Σ weight · tensor over tensors of one length, pruned and elected as `options` say. */
export function mixTensors(
  tensors: readonly Float64Array[],
  weights: readonly number[],
  options: MixOptions,
): Float64Array {
  const pruned = tensors.map((values, t) => prune(values, t, options));
  const out = new Float64Array(tensors[0]!.length);
  for (let i = 0; i < out.length; i++) {
    const elected = options.electsSign ? majority(pruned, i, options.majoritySign) : 0;
    let [sum, count] = [0, 0];
    for (const [t, values] of pruned.entries()) {
      if (elected !== 0 && Math.sign(values[i]!) !== elected) continue;
      sum += weights[t]! * values[i]!;
      count++;
    }
    out[i] = elected === 0 ? sum : sum / Math.max(1, count);
  }
  return out;
}

function prune(
  values: Float64Array,
  t: number,
  { prune: method, density, keeps }: MixOptions,
): Float64Array {
  if (method === "none" || density >= 1) return values;
  if (method === "random") return values.map((value, i) => (keeps(t, i) ? value / density : 0));
  const kept = Math.floor(density * values.length);
  const order = Array.from(values.keys()).sort(
    (a, b) => Math.abs(values[b]!) - Math.abs(values[a]!),
  );
  const out = new Float64Array(values.length);
  for (const i of order.slice(0, kept)) out[i] = values[i]!;
  return out;
}

function majority(
  tensors: readonly Float64Array[],
  i: number,
  by: MixOptions["majoritySign"],
): 1 | -1 {
  const vote = tensors.reduce(
    (sum, values) => sum + (by === "total" ? values[i]! : Math.sign(values[i]!)),
    0,
  );
  return vote >= 0 ? 1 : -1;
}
