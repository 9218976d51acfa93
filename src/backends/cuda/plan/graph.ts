/** @file The graph as the planner sees it: primitives and ops with kernels of their own, uses counted, storage chosen. */
import type { Graph } from "../../../ir/graph.ts";
import { rootsOf, topological, withRoots } from "../../../ir/graph.ts";
import type { Node } from "../../../ir/node.ts";
import { attentionGradient } from "../../../ops/attention-gradient.ts";
import { attention } from "../../../ops/attention.ts";
import { broadcastTo } from "../../../ops/broadcast-to.ts";
import { isTrainable, leaves } from "../../../ops/leaf.ts";
import {
  linearCrossEntropy,
  linearCrossEntropyGradient,
} from "../../../ops/linear-cross-entropy.ts";
import { matmul } from "../../../ops/matmul.ts";
import { mul } from "../../../ops/mul.ts";
import { neg } from "../../../ops/neg.ts";
import { reduceMax } from "../../../ops/reduce-max.ts";
import { reduceSum } from "../../../ops/reduce-sum.ts";
import { reshape } from "../../../ops/reshape.ts";
import { rope } from "../../../ops/rope.ts";
import { scatterRows } from "../../../ops/scatter-rows.ts";
import { cse } from "../../../passes/cse.ts";
import { expand } from "../../../passes/expand.ts";
import { dropMarks, fold } from "../../../passes/fold.ts";
import { padHeads } from "../../../passes/pad-heads.ts";
import { isFloat } from "../../../tensor/dtype.ts";
import { HEAD_UNIT } from "../attention.ts";
import type { Storage } from "./value.ts";

/** Arithmetic of large values: storage of activations and of weights that enter matrix products. */
export type Precision = "bf16" | "f16" | "f32";

/** A simplified graph with what the planner looks up again and again. */
export interface PlanGraph {
  readonly graph: Graph;
  /** Inputs before users. */
  readonly order: readonly Node[];
  readonly users: ReadonlyMap<Node, readonly Node[]>;
  readonly storage: ReadonlyMap<Node, Storage>;
  readonly precision: Precision;
}

const special = new Set([
  attention.rules,
  attentionGradient.rules,
  rope.rules,
  linearCrossEntropy.rules,
  linearCrossEntropyGradient.rules,
]);
const unfused = new Set([...special, matmul.rules, scatterRows.rules]);
const reductions = new Set([reduceSum.rules, reduceMax.rules]);

/** Whether a kernel of its own (or a library) computes `node`; all other ops are generated code. */
export function isUnfused(node: Node): boolean {
  return unfused.has(node.op);
}

export function isReduction(node: Node): boolean {
  return reductions.has(node.op);
}

export function isLeaf(node: Node): boolean {
  return (
    node.inputs.length === 0 &&
    (node.op === leaves.parameter || node.op === leaves.input || node.op === leaves.literal)
  );
}

/**
 * Decomposes, folds and merges `graph`, and decides how each value is stored.
 * @param head features of the largest head that attention kernels take
 */
export function planGraph(graph: Graph, precision: Precision, head = 256): PlanGraph {
  const largest = precision === "f32" ? 0 : head;
  const keep = (node: Node): boolean => special.has(node.op) && hasKernel(node, largest);
  const roots = padHeads(rootsOf(graph), HEAD_UNIT, (D) => D < largest);
  const simple = cse(
    fold(dropMarks(expand(roots, (node) => keep(node) || node.op.decompose === undefined))),
  );
  const order = topological(simple);
  const users = new Map<Node, Node[]>(order.map((node) => [node, []]));
  for (const node of order) for (const input of new Set(node.inputs)) users.get(input)!.push(node);
  const storage = new Map<Node, Storage>();
  const isCache = (node: Node): boolean =>
    node.op === leaves.input && graph.caches !== undefined && node.name! in graph.caches;
  for (const node of order)
    storage.set(node, isCache(node) ? precision : storageOf(node, storage, precision));
  return { graph: withRoots(graph, simple), order, users, storage, precision };
}

function hasKernel(node: Node, largest: number): boolean {
  if (node.op === attention.rules || node.op === attentionGradient.rules) {
    const [q, , v] = node.inputs as [Node, Node, Node];
    const D = q.shape[3]!;
    // the kernels' windows look back alone; windows to both sides (ModernBERT) go by parts
    if (node.attrs["causal"] === false && node.attrs["window"] !== 0) return false;
    const isSize = D % HEAD_UNIT === 0 && D <= largest && v.shape[3] === D;
    return isSize && node.attrs["softcap"] === 0;
  }
  if (node.op === rope.rules) return node.inputs[0]!.shape[2]! % 2 === 0;
  return true;
}

/** Sums and everything made of float32 values only stay in float32; other floats take the precision of the program. */
function storageOf(node: Node, known: ReadonlyMap<Node, Storage>, precision: Precision): Storage {
  if (node.dtype === "bool") return "u8";
  if (!isFloat(node.dtype)) return "i32";
  if (node.op === leaves.parameter)
    return isTrainable(node) || node.shape.length < 2 ? "f32" : precision;
  if (isReduction(node) || node.op === linearCrossEntropy.rules) return "f32";
  if (special.has(node.op)) return node.op === rope.rules ? known.get(node.inputs[0]!)! : precision;
  return node.inputs.some((input) => known.get(input) === precision) ? precision : "f32";
}

/** `node` without scalar factors: node = alpha · core. */
export function stripScale(node: Node): { alpha: number; core: Node } {
  let [alpha, core] = [1, node];
  for (;;) {
    if (core.op === neg.rules) [alpha, core] = [-alpha, core.inputs[0]!];
    else if (core.op === mul.rules) {
      const [a, b] = core.inputs as [Node, Node];
      const [factor, rest] = scalarOf(b) === undefined ? [scalarOf(a), b] : [scalarOf(b), a];
      if (factor === undefined || rest.shape.join() !== core.shape.join()) return { alpha, core };
      [alpha, core] = [alpha * factor, rest];
    } else return { alpha, core };
  }
}

/** The value of a constant, also behind reshapes and broadcasts. */
export function scalarOf(node: Node): number | undefined {
  let at = node;
  while (at.op === broadcastTo.rules || at.op === reshape.rules) at = at.inputs[0]!;
  return at.op === leaves.constant ? (at.attrs["value"] as number) : undefined;
}

/** `node` without reshapes, which change no element's place. */
export function stripReshape(node: Node): Node {
  let at = node;
  while (at.op === reshape.rules) at = at.inputs[0]!;
  return at;
}
