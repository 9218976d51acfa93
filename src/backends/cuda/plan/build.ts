/** @file From a graph to units in order: which nodes are stored where, and who computes them. */
import { type Graph, rootsOf } from "../../../ir/graph.ts";
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
import { reductionKernel, rowKernel } from "./fused-kernel.ts";
import type { Store } from "./kernel-draft.ts";
import { fuse, outside } from "./fusion.ts";
import { largestHead } from "../attention.ts";
import { isUnfused, planGraph, type Precision, stripReshape } from "./graph.ts";
import { findBackward, findLoraGroups, type LoraBackward, sumsByWeight } from "./lora.ts";
import { addGradientsOfA, addGradientsOfB } from "./lora-gradients.ts";
import { placeBackward, placeGroup, type PlacedGroup } from "./lora-place.ts";
import { addBackward, addForward } from "./lora-units.ts";
import { sumUnit } from "./products.ts";
import { addCaches } from "./cache-units.ts";
import { addAttention, type AttentionChoice } from "./attention-units.ts";
import { addCrossEntropy } from "./cross-entropy-units.ts";
import { addRope, addScatter } from "./special-units.ts";
import { chooseStored, isSpecial } from "./stored.ts";
import { findSums, type Product, type Sum } from "./sums.ts";
import { newValue, type Unit, type Value } from "./value.ts";

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
  for (const { placed, backward } of done.backwards) addBackward(context, placed, backward);
  const joined = joinGradients(context, done.backwards, sums);
  const stores = addSums(context, sums, done.sums, new Set(joined));
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

interface PlacedLora {
  readonly groups: readonly { placed: PlacedGroup }[];
  readonly backwards: readonly { placed: PlacedGroup; backward: LoraBackward }[];
  /** Sums that these units compute. */
  readonly sums: ReadonlySet<Node>;
}

function placeLora(
  context: PlanContext,
  found: ReturnType<typeof findLoraGroups>,
  sums: ReadonlyMap<Node, Sum>,
): PlacedLora {
  const groups = found.flatMap((group) => {
    const placed = placeGroup(context, group);
    return placed ? [{ placed }] : [];
  });
  const done = new Set<Node>();
  for (const { placed } of groups)
    for (const { sum, adapter } of placed.group.members) {
      done.add(sum.node);
      if (adapter) done.add(adapter.u);
    }
  const byWeight = sumsByWeight(sums);
  const backwards: { placed: PlacedGroup; backward: LoraBackward }[] = [];
  for (const { placed } of groups)
    for (const backward of findBackward(placed.group, sums, byWeight)) {
      if (done.has(backward.sum.node) || !placeBackward(context, placed, backward)) continue;
      backwards.push({ placed, backward });
      done.add(backward.sum.node);
      const isWhole = backward.members.every(({ adapter, g }) => !adapter || g);
      if (isWhole) for (const { g } of backward.members) if (g) done.add(g);
    }
  return { groups, backwards, sums: done };
}

/** A place of its own for everything else that is stored; rotations happen in place where they can. */
function placeRest(
  context: PlanContext,
  sums: ReadonlyMap<Node, Sum>,
  stored: ReadonlySet<Node>,
): void {
  const { plan, values } = context;
  placeRotations(context);
  for (const node of plan.order) {
    const isKept = sums.has(node) || isSpecial(node, sums) || stored.has(node);
    if (isKept && !values.has(node))
      values.set(node, newValue(node.shape, plan.storage.get(node)!));
  }
}

/** Rotations share the place of what they rotate, where nothing else reads that. */
function placeRotations(context: PlanContext): void {
  const { plan, values } = context;
  const roots = new Set(rootsOf(plan.graph));
  for (const node of plan.order) {
    if (node.op.name !== "rope") continue;
    const source = stripReshape(node.inputs[0]!);
    const isLast =
      usersThroughReshapes(context, source).length === 1 &&
      !roots.has(source) &&
      source.inputs.length > 0;
    if (!isLast || (values.has(source) && values.has(node))) continue;
    const place =
      values.get(source) ?? values.get(node) ?? newValue(node.shape, plan.storage.get(node)!);
    for (const each of [source, node]) values.set(each, { ...place, shape: each.shape });
  }
}

function usersThroughReshapes({ plan }: PlanContext, node: Node): Node[] {
  return plan.users
    .get(node)!
    .flatMap((user) =>
      user.op.name === "reshape" ? usersThroughReshapes({ plan } as PlanContext, user) : [user],
    );
}

/** Gradients of a group's adapters together, where they are plain products. Returns the nodes that are done. */
function joinGradients(
  context: PlanContext,
  backwards: PlacedLora["backwards"],
  sums: ReadonlyMap<Node, Sum>,
): Node[] {
  const { plan, state } = context;
  /** The one product αaᵀ·b that is the whole gradient of `parameter`. */
  const productOf = (parameter: Node): { root: Node; product: Product } | undefined => {
    const root = plan.graph.gradients[parameter.name!];
    const sum = root && sums.get(root);
    const [product] = sum?.products ?? [];
    const isPlain =
      sum?.products.length === 1 && sum.others.length === 0 && product!.transA && !product!.transB;
    return isPlain && plan.users.get(root!)!.length === 0
      ? { root: root!, product: product! }
      : undefined;
  };
  return backwards.flatMap(({ placed, backward }) => {
    const members = backward.members.flatMap(({ dy, g, adapter }) =>
      adapter && g ? [{ dy, g, adapter }] : [],
    );
    if (members.length === 0) return [];
    const as = members.map(({ g, adapter }) => {
      const found = productOf(adapter.a);
      return found?.product.a === g && found.product.alpha === 1 ? found : undefined;
    });
    const bs = members.map(({ dy, adapter }) => {
      const found = productOf(adapter.b);
      const isSame =
        found?.product.a === dy &&
        Math.abs(found.product.alpha - adapter.scale) <= 1e-9 * Math.abs(adapter.scale);
      return isSame && context.values.get(found.product.b)?.cols === adapter.rank
        ? found
        : undefined;
    });
    const places = members.map(({ adapter }) => state.value(adapter.a.name!, ".grad").region);
    const isContiguous = places.every(
      ({ address }, i) => i === 0 || address === places[i - 1]!.address + places[i - 1]!.bytes,
    );
    const done: Node[] = [];
    const x = as[0]?.product.b;
    const isTight = members.every(({ adapter }) => adapter.rank % 8 === 0);
    if (x && isTight && isContiguous && as.every((each) => each?.product.b === x)) {
      addGradientsOfA(context, placed, backward, x);
      done.push(...as.map((each) => each!.root));
    }
    const isEven = members.every(
      ({ adapter }) =>
        adapter.rank === members[0]!.adapter.rank && adapter.scale === members[0]!.adapter.scale,
    );
    if (isEven && bs.every((each) => each !== undefined)) {
      addGradientsOfB(
        context,
        placed,
        members.map(({ dy, adapter }, i) => ({ dy, adapter, u: bs[i]!.product.b })),
      );
      done.push(...bs.map((each) => each.root));
    }
    return done;
  });
}

/** Units for the sums that nobody computes yet, and what must be stored for the results of the program. */
function addSums(
  context: PlanContext,
  sums: ReadonlyMap<Node, Sum>,
  done: ReadonlySet<Node>,
  joined: ReadonlySet<Node>,
): { stores: Store[]; outputs: Map<string, Value> } {
  const { plan, state } = context;
  const stores: Store[] = [];
  const direct = new Set<Node>([...done, ...joined]);
  for (const [name, node] of Object.entries(plan.graph.gradients)) {
    if (joined.has(node)) continue;
    const sum = sums.get(node);
    const value = state.value(name, ".grad");
    const isAlone =
      Object.values(plan.graph.gradients).filter((each) => each === node).length === 1;
    const isOutput = Object.values(plan.graph.outputs).includes(node);
    if (sum && isAlone && !isOutput && !done.has(node) && plan.users.get(node)!.length === 0) {
      addUnit(context, node, sumUnit(context, sum, value, { accumulate: true, isEager: true }));
      direct.add(node);
    } else stores.push({ node, value, accumulate: true });
  }
  const outputs = new Map<string, Value>();
  for (const [name, node] of Object.entries(plan.graph.outputs)) {
    const value = newValue(node.shape, "f32");
    value.region = { ...value.region, isPlanned: false };
    outputs.set(name, value);
    stores.push({ node, value, accumulate: false });
  }
  for (const [node, sum] of sums)
    if (!direct.has(node))
      addUnit(context, node, sumUnit(context, sum, storedValue(context, node)));
  return { stores, outputs };
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
