/** @file Puts stored values of generated code that share rows and inputs into one kernel. */
import type { Node } from "../../../ir/node.ts";
import { GroupMismatch } from "./expression.ts";
import { isReduction } from "./graph.ts";
import type { Store } from "./kernel-draft.ts";
import { type Space, spaceOf } from "./kernel-space.ts";
import { rowKernel } from "./row-kernel.ts";
import type { Storing } from "./stored.ts";
import type { Value } from "./value.ts";

/** Stores that one kernel makes. */
export interface FusedGroup {
  readonly stores: Store[];
  /** Undefined for a reduction that does not run along rows. */
  readonly space: Space | undefined;
}

const MAX_STORES = 8;
const MAX_PARAMETERS = 20;
/** Newest groups of one space that a value may join. */
const LOOK_BACK = 6;

interface Draft extends FusedGroup {
  first: number;
  last: number;
}

/** What grouping knows while it goes through the stores. */
interface Grouping {
  readonly storing: Storing;
  readonly order: ReadonlyMap<Node, number>;
  readonly valueOf: (node: Node) => Value | undefined;
  /** The group that computes a node. */
  readonly groupOf: Map<Node, Draft>;
}

/**
 * @param stores what to write, in the order of the graph
 * @param order place of each node in the graph
 * @param valueOf where a stored node is
 */
export function fuse(
  stores: readonly Store[],
  storing: Storing,
  order: ReadonlyMap<Node, number>,
  valueOf: (node: Node) => Value | undefined,
): FusedGroup[] {
  const grouping: Grouping = { storing, order, valueOf, groupOf: new Map() };
  const groups: Draft[] = [];
  const bySpace = new Map<string, Draft[]>();
  for (const store of stores) {
    const space = spaceOf(store.node);
    const at = order.get(store.node)!;
    const key = space ? `${space.rows} ${space.columns}` : "";
    const alike = space ? (bySpace.get(key) ?? []) : [];
    const near = [...alike.slice(-LOOK_BACK), ...rowCandidates(store, space, bySpace)];
    let group = near.reverse().find((each) => canJoin(grouping, store, each));
    if (group) {
      group.stores.push(store);
      group.last = Math.max(group.last, at);
    } else {
      group = { stores: [store], space, first: at, last: at };
      groups.push(group);
      if (space) bySpace.set(key, [...alike, group]);
    }
    if (!storing.isExternal(store.node)) grouping.groupOf.set(store.node, group);
  }
  return groups;
}

function sourcesOf({ storing }: Grouping, { node }: Store): readonly Node[] {
  return storing.isExternal(node) ? [node] : storing.inputsOf(node);
}

/** Whether computing something from `start` needs something of `group` by a way that leaves the group. */
function reaches(grouping: Grouping, start: readonly Node[], group: Draft): boolean {
  const { groupOf, order, storing } = grouping;
  const seen = new Set<Node>();
  const stack = [...start];
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (seen.has(node)) continue;
    seen.add(node);
    const own = groupOf.get(node);
    if (own === group) return true;
    if ((own ? own.last : order.get(node)!) < group.first) continue;
    stack.push(
      ...(own ? own.stores.flatMap((each) => sourcesOf(grouping, each)) : storing.inputsOf(node)),
    );
  }
  return false;
}

function canJoin(grouping: Grouping, store: Store, group: Draft): boolean {
  const { storing, valueOf } = grouping;
  const inputs = sourcesOf(grouping, store);
  const inner = new Set(
    group.stores.map(({ node }) => node).filter((node) => !storing.isExternal(node)),
  );
  const shared = new Set(group.stores.flatMap((each) => sourcesOf(grouping, each)));
  const isRelated =
    inputs.some((input) => inner.has(input) || shared.has(input)) || inner.has(store.node);
  if (!isRelated || group.stores.length >= MAX_STORES) return false;
  const outer = inputs.filter((input) => !inner.has(input));
  if (reaches(grouping, outer, group)) return false;
  try {
    const joined = [...group.stores, store];
    const kernel = rowKernel(joined, group.space!, outside(joined, storing, valueOf));
    return kernel.parameters.length <= MAX_PARAMETERS;
  } catch (error) {
    if (error instanceof GroupMismatch) return false;
    throw error;
  }
}

/** Groups along whose rows a value with one element a row may be stored. */
function rowCandidates(
  { node }: Store,
  space: Space | undefined,
  bySpace: ReadonlyMap<string, Draft[]>,
): Draft[] {
  if (!space || isReduction(node)) return [];
  const size = space.rows * space.columns;
  return [...bySpace.values()]
    .flat()
    .filter(
      (group) =>
        group.space!.rows === size && group.stores.some((store) => isReduction(store.node)),
    )
    .slice(-2);
}

/** Where nodes are that a kernel for `stores` reads: those that it computes itself have no place. */
export function outside(
  stores: readonly Store[],
  storing: Storing,
  valueOf: (node: Node) => Value | undefined,
): (node: Node) => Value | undefined {
  const own = new Set(stores.map(({ node }) => node).filter((node) => !storing.isExternal(node)));
  return (node) => (own.has(node) ? undefined : valueOf(node));
}
