/** @file Which values of generated code are written to memory; all others are computed again where they are used. */
import type { Node } from "../../../ir/node.ts";
import { leaves } from "../../../ops/leaf.ts";
import { isLeaf, isReduction, isUnfused, type PlanGraph, scalarOf, stripReshape } from "./graph.ts";
import type { Sum } from "./sums.ts";

/** Most operations that one value may repeat for another. */
const MAX_INLINE = 160;
/** Operations from which a value with several users is stored rather than repeated. */
const MAX_REPEAT = 40;
const COSTLY: Readonly<Record<string, number>> = {
  pad: 8,
  concat: 8,
  erf: 8,
  tanh: 6,
  sin: 10,
  cos: 10,
  exp: 3,
  sigmoid: 4,
};

/** How the planner sees each node: stored values and what they are computed from. */
export interface Storing {
  /** Values of generated code that are stored, inputs before users. */
  readonly stored: ReadonlySet<Node>;
  /** The stored values, leaves and unfused results that a node is computed from. */
  inputsOf(node: Node): readonly Node[];
  /** Whether something other than generated code gives the node's value. */
  isExternal(node: Node): boolean;
}

export function chooseStored(plan: PlanGraph, sums: ReadonlyMap<Node, Sum>): Storing {
  const stored = new Set<Node>();
  const isExternal = (node: Node): boolean =>
    isLeaf(node) || sums.has(node) || isSpecial(node, sums);
  const isBoundary = (node: Node): boolean => isExternal(node) || stored.has(node);
  for (const node of neededValues(plan, sums)) {
    const source = stripReshape(node);
    if (!isExternal(source)) stored.add(source);
  }
  for (const node of plan.order) if (isReduction(node)) stored.add(node);
  storeRepeated(plan, stored, isBoundary);
  return { stored, inputsOf: boundaryInputs(sums, isBoundary), isExternal };
}

/** What kernels other than generated ones read, and what generated ones read by addresses that they compute. */
function neededValues(plan: PlanGraph, sums: ReadonlyMap<Node, Sum>): Node[] {
  const ofSums = [...sums.values()].flatMap(sumInputs);
  const caches = Object.values(plan.graph.caches ?? {});
  const ofNodes = plan.order.flatMap((node) => {
    if (isSpecial(node, sums)) return node.inputs;
    return FIRST_STORED.has(node.op.name) ? node.inputs.slice(0, 1) : [];
  });
  return [...ofSums, ...caches, ...ofNodes];
}

const FIRST_STORED: ReadonlySet<string> = new Set(["gatherRows", "randomKeep", "randomMask"]);

function sumInputs({ products, others }: Sum): Node[] {
  return [...products.flatMap(({ a, b }) => [a, b]), ...others];
}

/** Stores values that would cost too much to compute in place, or to compute again for each user. */
function storeRepeated(
  plan: PlanGraph,
  stored: Set<Node>,
  isBoundary: (node: Node) => boolean,
): void {
  const cost = new Map<Node, number>();
  for (const node of plan.order) {
    if (node.op === leaves.constant || scalarOf(node) !== undefined) continue;
    const own = COSTLY[node.op.name] ?? 1;
    const total = node.inputs.reduce(
      (sum, input) => sum + (isBoundary(input) ? 1 : (cost.get(input) ?? 0)),
      own,
    );
    cost.set(node, total);
    if (isBoundary(node) || isUnfused(node) || node.op.name === "reshape") continue;
    const isRepeated = plan.users.get(node)!.length > 1 && total > MAX_REPEAT;
    if (total > MAX_INLINE || isRepeated) stored.add(node);
  }
}

function boundaryInputs(
  sums: ReadonlyMap<Node, Sum>,
  isBoundary: (node: Node) => boolean,
): Storing["inputsOf"] {
  const known = new Map<Node, readonly Node[]>();
  const inputsOf = (node: Node): readonly Node[] => {
    const cached = known.get(node);
    if (cached) return cached;
    const sum = sums.get(node);
    const found = new Set<Node>();
    for (const input of sum ? sumInputs(sum) : node.inputs) {
      if (isBoundary(input)) found.add(input);
      else for (const deeper of inputsOf(input)) found.add(deeper);
    }
    const result = [...found];
    known.set(node, result);
    return result;
  };
  return inputsOf;
}

/** Whether `node` is computed by a kernel of its own other than a matrix product. */
export function isSpecial(node: Node, sums: ReadonlyMap<Node, Sum>): boolean {
  return isUnfused(node) && node.op.name !== "matmul" && !sums.has(node);
}
