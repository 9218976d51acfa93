/** @file When two programs at the same time, each with half of the threads, are faster than one after the other. */
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { type Graph, rootsOf, topological } from "../../ir/graph.ts";
import { isFrozen, isTrainable } from "../../ops/leaf.ts";
import { sizeOf } from "../../tensor/shape.ts";

/** Trainable elements for each frozen one, above which copying parameters and gradients would cost too much. */
const LARGEST_SHARE = 1 / 8;

/**
 * Whether pairs of programs of `graph`, which is lowered, are worth it: few of its elements train, and no weight is
 * widened before use, which each of the two would do.
 */
export function gainsFromPairs(graph: Graph): boolean {
  const nodes = topological(rootsOf(graph));
  const frozen = nodes.filter(isFrozen);
  const sum = (sizes: readonly number[]): number => sizes.reduce((a, b) => a + b, 0);
  const trained = sum(nodes.filter(isTrainable).map(({ shape }) => sizeOf(shape)));
  const fixed = sum(frozen.map(({ shape }) => sizeOf(shape)));
  return frozen.every(({ dtype }) => dtype === "f32") && trained <= fixed * LARGEST_SHARE;
}

/** Half of `threads` (0: of the physical cores), or 0 for one alone. */
export function halfOfThreads(threads: number): number {
  return Math.floor((threads || physicalCores()) / 2);
}

/** Cores that this process may use, as ONNX Runtime counts them; threads where the system does not tell. */
function physicalCores(): number {
  const threads = availableParallelism();
  try {
    const folder = "/sys/devices/system/cpu";
    const names = readdirSync(folder).filter((name) => /^cpu\d+$/.test(name));
    const siblings = names.map((name) =>
      readFileSync(`${folder}/${name}/topology/thread_siblings_list`, "utf8"),
    );
    return Math.min(threads, new Set(siblings).size);
  } catch {
    return threads;
  }
}
