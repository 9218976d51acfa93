import { hasLowering } from "../backends/onnx/has-lowering.ts";
import { type Graph, rootsOf, topological, withRoots } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { cse } from "../passes/cse.ts";
import { expand } from "../passes/expand.ts";
import { dropMarks, fold } from "../passes/fold.ts";
import { rematerialize } from "../passes/rematerialize.ts";
import { sizeOf } from "../tensor/shape.ts";

/** Bytes of the values of a step on the CPU; leaves are counted apart. */
export interface StepValues {
  /** Those kept for the backward pass. */
  readonly kept: number;
  /** Those that the backward pass computes again. */
  readonly recomputed: number;
  /** The largest one. */
  readonly largest: number;
  /** The most that are needed at once, each freed after its last use. */
  readonly peak: number;
}

/** The values of `graph`, a training step, as the CPU's engine runs it. */
export function stepValues(graph: Graph): StepValues {
  const lowered = cse(fold(dropMarks(expand(rootsOf(graph), (node) => hasLowering(node, "cpu")))));
  const { outputs, gradients } = withRoots(graph, lowered);
  const losses = Object.values(outputs);
  const results = rematerialize(losses, Object.values(gradients));
  const forward = new Set(topological(losses));
  const backward = topological(results).filter((node) => !forward.has(node));
  const read = new Set(backward.flatMap((node) => node.inputs));
  return {
    kept: bytesOf([...read].filter((node) => forward.has(node))),
    recomputed: bytesOf(backward.filter((node) => node.phase === "recompute")),
    largest: Math.max(0, ...[...forward, ...backward].filter(isValue).map(nodeBytes)),
    // the last layer's gradients first: they free its activations
    peak: peakOf(topological([...losses, ...results.reverse()])),
  };
}

/** The most bytes that are live at once when `nodes` run one after another. */
function peakOf(nodes: readonly Node[]): number {
  const lastUse = new Map<Node, number>();
  for (const [i, node] of nodes.entries())
    for (const used of [node, ...node.inputs]) lastUse.set(stored(used), i);
  const freed = new Map<number, number>();
  for (const [node, at] of lastUse)
    if (isValue(node)) freed.set(at, (freed.get(at) ?? 0) + nodeBytes(node));
  let [live, peak] = [0, 0];
  for (const [i, node] of nodes.entries()) {
    live += isValue(node) ? nodeBytes(node) : 0;
    peak = Math.max(peak, live);
    live -= freed.get(i) ?? 0;
  }
  return peak;
}

/** Where the values of `node` lie: a reshape is a view. */
function stored(node: Node): Node {
  return node.op.name === "reshape" ? stored(node.inputs[0]!) : node;
}

function bytesOf(nodes: readonly Node[]): number {
  return nodes.filter(isValue).reduce((sum, node) => sum + nodeBytes(node), 0);
}

function isValue(node: Node): boolean {
  return node.inputs.length > 0 && node.op.name !== "reshape";
}

function nodeBytes(node: Node): number {
  return sizeOf(node.shape) * (node.dtype === "i64" ? 8 : 4);
}
