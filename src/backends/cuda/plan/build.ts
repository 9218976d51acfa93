/** @file From a graph to units in order: which nodes are stored where, and who computes them. */
import type { Graph } from "../../../ir/graph.ts";
import type { Node } from "../../../ir/node.ts";
import { isTrainable } from "../../../ops/leaf.ts";
import {
  addUnit,
  type EngineParts,
  type GeneratedKernels,
  type PlanContext,
  storedValue,
  valueOf,
} from "./context.ts";
import type { Store } from "./kernel-draft.ts";
import { fuse, outside } from "./fusion.ts";
import { largestHead } from "../attention.ts";
import { isUnfused, planGraph, type Precision } from "./graph.ts";
import { findLoraGroups } from "./lora.ts";
import { joinGradients } from "./lora-joint-gradients.ts";
import { addBackward, addForward } from "./lora-units.ts";
import { placeLora, placeRest } from "./placement.ts";
import { reductionKernel } from "./reduction-kernel.ts";
import { rowKernel } from "./row-kernel.ts";
import { addCaches } from "./cache-units.ts";
import { addAttention, type AttentionChoice } from "./attention-units.ts";
import { addCrossEntropy } from "./cross-entropy-units.ts";
import { addRope, addScatter } from "./special-units.ts";
import { chooseStored, isSpecial } from "./stored.ts";
import { addSums } from "./sum-units.ts";
import { findSums, type Sum } from "./sums.ts";
import type { Unit, Value } from "./value.ts";

/** Units of a program and the values that go in and out. */
export interface BuiltPlan {
  /** In the order of the graph. */
  readonly units: readonly Unit[];
  readonly inputs: ReadonlyMap<string, Value>;
  readonly outputs: ReadonlyMap<string, Value>;
  readonly literals: PlanContext["literals"];
  readonly scratch: PlanContext["scratch"];
}

/** How a plan is built. `isUnfused`: a kernel of its own for each value. */
interface PlanOptions {
  readonly precision: Precision;
  readonly attention: AttentionChoice;
  readonly kernels: GeneratedKernels;
  readonly isUnfused?: boolean;
}

export function buildPlan(parts: EngineParts, graph: Graph, options: PlanOptions): BuiltPlan {
  const { sharedBytes } = parts.device.info;
  const plan = planGraph(graph, options.precision, largestHead(sharedBytes));
  const sums = findSums(plan);
  const storing = chooseStored(plan, sums);
  const order = new Map(plan.order.map((node, i) => [node, i]));
  const context: PlanContext = {
    ...parts,
    plan,
    sums,
    order,
    values: new Map(),
    units: [],
    kernels: options.kernels,
    inputs: new Map(),
    copies: new Map(),
    literals: [],
    scratch: { address: 0, bytes: 0 },
  };
  const groups = findLoraGroups(plan, sums, ({ name, shape }) =>
    parts.weights.isQuantized(name!, shape),
  );
  declareParameters(
    context,
    groups.flatMap(({ members }) => members.flatMap(({ adapter }) => (adapter ? [adapter.a] : []))),
  );
  const done = placeLora(context, groups, sums);
  placeRest(context, sums, storing.stored);
  for (const { placed } of done.groups) addForward(context, placed);
  const joined = joinGradients(context, done.backwards, sums);
  for (const { placed, backward } of done.backwards)
    addBackward(context, placed, backward, joined.low.has(backward));
  const stores = addSums(context, sums, done.sums, joined.done);
  addSpecials(context, sums, options.attention);
  addCaches(context);
  const own = [...storing.stored].map((node) => ({
    node,
    value: storedValue(context, node),
    accumulate: false,
  }));
  const all = [...own, ...stores.stores];
  for (const part of options.isUnfused ? all.map((store) => [store]) : [all])
    addFused(context, storing, part);
  const units = context.units.sort((a, b) => a.at - b.at).map(({ unit }) => unit);
  const { inputs, literals, scratch } = context;
  return { units, inputs, outputs: stores.outputs, literals, scratch };
}

/** Gives parameters memory; the A matrices of one group one after another, so that one product can fill their gradients. */
function declareParameters({ plan, state }: PlanContext, first: readonly Node[]): void {
  const trainable = plan.order.filter(isTrainable);
  const ordered = new Map([...first, ...trainable].map((node) => [node.name!, node]));
  state.declare([...ordered.values()].map(({ name, shape }) => ({ name: name!, shape })));
  for (const name of Object.keys(plan.graph.gradients))
    if (state.has(name)) state.expectGradient(name);
}

function addSpecials(
  context: PlanContext,
  sums: ReadonlyMap<Node, Sum>,
  choose: AttentionChoice,
): void {
  const nodes = context.plan.order.filter((node) => isSpecial(node, sums) && isUnfused(node));
  addAttention(
    context,
    nodes.filter(({ op }) => op.name.startsWith("attention")),
    choose,
  );
  const heads = nodes.filter(({ op }) => op.name.startsWith("linearCrossEntropy"));
  const sameInputs = (a: Node, b: Node): boolean =>
    a.inputs.every((input, i) => input === b.inputs[i]);
  for (const node of heads) {
    const isGradient = node.op.name.endsWith("Gradient");
    const pair = heads.find((other) => other.op !== node.op && sameInputs(node, other));
    if (!isGradient) addCrossEntropy(context, node, pair);
    else if (!pair) addCrossEntropy(context, undefined, node);
  }
  for (const node of nodes) {
    if (node.op.name === "rope") addRope(context, node);
    if (node.op.name === "scatterRows") addScatter(context, node);
  }
}

function addFused(
  context: PlanContext,
  storing: ReturnType<typeof chooseStored>,
  stores: readonly Store[],
): void {
  const at = (node: Node): number => context.order.get(node)!;
  const sorted = [...stores].sort((a, b) => at(a.node) - at(b.node));
  const find = (node: Node): Value | undefined => valueOf(context, node);
  for (const { stores: group, space } of fuse(sorted, storing, context.order, find)) {
    const read = outside(group, storing, find);
    const kernel = space ? rowKernel(group, space, read) : reductionKernel(group[0]!, read);
    const isEager = group.every(({ accumulate }) => accumulate);
    const last = group.reduce((a, b) => (at(a.node) >= at(b.node) ? a : b));
    addUnit(context, last.node, { ...context.kernels.unit("fused", kernel, group), isEager });
  }
}
