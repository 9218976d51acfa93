/** @file Units of sums of matrix products, and what else must be stored for the results of a program. */
import type { Node } from "../../../ir/node.ts";
import { addUnit, type PlanContext, storedValue } from "./context.ts";
import type { Store } from "./kernel-draft.ts";
import { sumUnit } from "./products.ts";
import type { Sum } from "./sums.ts";
import { newValue, type Value } from "./value.ts";

/** Units for the sums that nobody computes yet, and what must be stored for the results of the program. */
export function addSums(
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
