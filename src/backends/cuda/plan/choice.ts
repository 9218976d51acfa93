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
      best = fastest(ways).way;
      for (const call of rest) call.prepare();
    },
    enqueue() {
      for (const call of [...best, ...rest]) call.enqueue();
    },
  };
}

/** The way that takes the least time, and how long it takes. */
function fastest(ways: Choice["ways"]): { way: readonly GemmCall[]; milliseconds: number } {
  let [way, milliseconds] = [ways[0]!, Infinity];
  for (const each of ways) {
    const total = each.reduce((sum, call) => sum + call.prepare(), 0);
    if (total < milliseconds) [milliseconds, way] = [total, each];
  }
  return { way, milliseconds };
}

/** A unit of several steps, each by its fastest way, or of one of `joint` for all of them, if that is faster. */
export function jointUnit(
  steps: readonly Choice["ways"][],
  joint: readonly GemmCall[],
  { name, reads, writes }: Pick<Choice, "name" | "reads" | "writes">,
): Unit {
  let best: readonly GemmCall[] = [];
  return {
    name,
    reads,
    writes,
    scratch: [],
    prepare() {
      const chosen = steps.map(fastest);
      const apart = chosen.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
      const together = fastest(joint.map((call) => [call]));
      const isFaster = together.milliseconds < apart;
      best = isFaster ? together.way : chosen.flatMap(({ way }) => way);
    },
    enqueue() {
      for (const call of best) call.enqueue();
    },
  };
}
