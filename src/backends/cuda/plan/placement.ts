/** @file Where values are stored: LoRA groups as blocks, rotations in place, everything else on its own. */
import { rootsOf } from "../../../ir/graph.ts";
import type { Node } from "../../../ir/node.ts";
import type { PlanContext } from "./context.ts";
import { stripReshape } from "./graph.ts";
import { findBackward, type LoraBackward, type LoraGroup, sumsByWeight } from "./lora.ts";
import { placeBackward, placeGroup, type PlacedGroup } from "./lora-place.ts";
import { isSpecial } from "./stored.ts";
import type { Sum } from "./sums.ts";
import { newValue } from "./value.ts";

/** LoRA groups that have their places. */
export interface PlacedLora {
  readonly groups: readonly { placed: PlacedGroup }[];
  readonly backwards: readonly { placed: PlacedGroup; backward: LoraBackward }[];
  /** Sums that these units compute. */
  readonly sums: ReadonlySet<Node>;
}

/** Gives groups and their backward passes their places, where those are free. */
export function placeLora(
  context: PlanContext,
  found: readonly LoraGroup[],
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
export function placeRest(
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
