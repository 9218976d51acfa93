/** @file A unit that can be computed in several ways, of which the fastest runs. */
import type { GemmCall } from "./products.ts";
import type { Unit, Value } from "./value.ts";

/** Ways to compute the same, and what runs after whichever is chosen. */
export interface Choice {
  readonly name: string;
  readonly ways: readonly (readonly GemmCall[])[];
  readonly rest?: readonly GemmCall[];
  readonly reads: readonly Value[];
  readonly writes: readonly Value[];
}

/** The library's calls, or our own kernel where it takes the sizes. */
export function waysOf(
  library: readonly GemmCall[],
  own: GemmCall | undefined,
): (readonly GemmCall[])[] {
  return own ? [library, [own]] : [library];
}

/** A unit that runs the fastest of several ways to compute the same, then `rest`. */
export function choiceUnit({ name, ways, rest = [], reads, writes }: Choice): Unit {
  let best = ways[0]!;
  return {
    name,
    reads: [...reads, ...rest.flatMap((call) => call.reads)],
    writes,
    scratch: [],
    prepare() {
      let least = Infinity;
      for (const way of ways) {
        const total = way.reduce((sum, call) => sum + call.prepare(), 0);
        if (total < least) [least, best] = [total, way];
      }
      for (const call of rest) call.prepare();
    },
    enqueue() {
      for (const call of [...best, ...rest]) call.enqueue();
    },
  };
}
