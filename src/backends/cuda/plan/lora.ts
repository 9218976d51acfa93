/**
 * @file Finds linear layers that share an input, with or without adapters, so that their frozen weights are one
 * matrix, and the adapters' halves lie at its border: y = [x | u]·[W | sB]ᵀ and dx = [dy | g]·[W ; A], u = x·Aᵀ, g = dy·sB.
 */
import type { Node } from "../../../ir/node.ts";
import { isFrozen, isTrainable } from "../../../ops/leaf.ts";
import { columnAxis } from "./indices.ts";
import type { PlanGraph } from "./graph.ts";
import type { Product, Sum } from "./sums.ts";

/** One layer of a group. */
export interface LoraMember {
  readonly weight: Node;
  /** The sum that holds the layer's result. */
  readonly sum: Sum;
  readonly base: Product;
  readonly adapter: Adapter | undefined;
  /** Products of the sum besides these. */
  readonly rest: readonly Product[];
}

export interface Adapter {
  readonly a: Node;
  readonly b: Node;
  readonly rank: number;
  /** Scale on B. */
  readonly scale: number;
  /** x·Aᵀ. */
  readonly u: Node;
}

/** Layers with the same input. */
export interface LoraGroup {
  readonly x: Node;
  readonly members: readonly LoraMember[];
}

/** The product x·Wᵀ of a frozen weight in `sum`, if there is one. */
function baseOf({ products }: Sum): Product | undefined {
  return products.find(
    ({ b, transA, transB, alpha }) =>
      isFrozen(b) && b.shape.length === 2 && transB && !transA && alpha === 1,
  );
}

/** The products scale · (x·Aᵀ)·Bᵀ of `sum` for this input. */
function adapterOf(
  sum: Sum,
  x: Node,
  sums: ReadonlyMap<Node, Sum>,
): { product: Product; adapter: Adapter } | undefined {
  for (const product of sum.products) {
    const { a: u, b, transA, transB, alpha } = product;
    if (!isTrainable(b) || transA || !transB) continue;
    const down = sums.get(u);
    const first = down?.products[0];
    if (down?.products.length !== 1 || down.others.length > 0 || !first) continue;
    const isDown =
      first.a === x && isTrainable(first.b) && !first.transA && first.transB && first.alpha === 1;
    if (isDown)
      return { product, adapter: { a: first.b, b, rank: first.b.shape[0]!, scale: alpha, u } };
  }
  return undefined;
}

/** Groups of frozen linear layers by input; a weight is in one group of an input at most. */
export function findLoraGroups(
  plan: PlanGraph,
  sums: ReadonlyMap<Node, Sum>,
  isQuantized: (weight: Node) => boolean,
): LoraGroup[] {
  const byInput = new Map<Node, LoraMember[]>();
  for (const node of plan.order) {
    const sum = sums.get(node);
    const base = sum && baseOf(sum);
    if (!base || plan.storage.get(node) !== plan.precision) continue;
    const found = adapterOf(sum, base.a, sums);
    const rest = sum.products.filter((product) => product !== base && product !== found?.product);
    const members = byInput.get(base.a) ?? [];
    if (members.some(({ weight }) => weight === base.b)) continue;
    byInput.set(base.a, [...members, { weight: base.b, sum, base, adapter: found?.adapter, rest }]);
  }
  const groups: LoraGroup[] = [];
  for (const [x, members] of byInput) {
    const open = members.filter(({ sum }) => sum.others.length === 0);
    const closed = members.filter(({ sum }) => sum.others.length > 0);
    if (open.length > 0 && isColumns(plan, x, x.shape.at(-1)!)) groups.push({ x, members: open });
    if (open.length === 0)
      for (const member of closed.slice(0, 1)) groups.push({ x, members: [member] });
  }
  return groups.filter(
    ({ members: [first, ...more] }) =>
      more.length > 0 || first!.adapter !== undefined || isQuantized(first!.weight),
  );
}

/** Whether every kernel that reads `node` may read it as a matrix of `columns` with gaps between its rows. */
export function isColumns({ users }: PlanGraph, node: Node, columns: number): boolean {
  const stack = [node];
  while (stack.length > 0) {
    const at = stack.pop()!;
    if (columnAxis(at.shape, columns) === undefined) return false;
    stack.push(...(users.get(at) ?? []).filter((user) => user.op.name === "reshape"));
  }
  return true;
}

/** Backward products of a group inside one sum: dx = Σ dy_i·W_i + Σ g_i·A_i. */
export interface LoraBackward {
  readonly sum: Sum;
  readonly members: readonly {
    readonly dy: Node;
    readonly weight: Node;
    readonly g: Node | undefined;
    readonly adapter: Adapter | undefined;
  }[];
  readonly rest: readonly Product[];
}

/** Finds the sum in which the gradients of a group's layers come together, if it has them all. */
export function findBackward(
  group: LoraGroup,
  sums: ReadonlyMap<Node, Sum>,
  byWeight: ReadonlyMap<Node, readonly Sum[]>,
): LoraBackward[] {
  const first = group.members[0]!.weight;
  return (byWeight.get(first) ?? []).flatMap((sum) => {
    const found = group.members.map(({ weight, adapter }) => {
      const base = sum.products.find(
        (p) => p.b === weight && !p.transA && !p.transB && p.alpha === 1,
      );
      return base && { base, weight, adapter, low: adapter && lowRank(sum, base.a, adapter, sums) };
    });
    const all = found.filter((member) => member !== undefined);
    if (
      all.length < group.members.length ||
      new Set(all.map(({ base }) => base.a)).size < all.length
    )
      return [];
    const isWhole = all.every(({ adapter, low }) => !adapter || low); // else their products stay in `rest`
    const used = new Set(
      all.flatMap(({ base, low }) => (isWhole && low ? [base, low.product] : [base])),
    );
    const members = all.map(({ base, weight, adapter, low }) => ({
      dy: base.a,
      weight,
      g: isWhole ? low?.g : undefined,
      adapter,
    }));
    return [{ sum, members, rest: sum.products.filter((product) => !used.has(product)) }];
  });
}

/** The product g·A in `sum` with g = scale · dy·B. */
function lowRank(
  sum: Sum,
  dy: Node,
  { a, b, scale }: Adapter,
  sums: ReadonlyMap<Node, Sum>,
): { product: Product; g: Node } | undefined {
  for (const product of sum.products) {
    if (product.b !== a || product.transA || product.transB) continue;
    const down = onlyProduct(sums.get(product.a));
    const isUp = down?.a === dy && down.b === b && !down.transA && !down.transB;
    if (isUp && product.alpha === 1 && isSame(down.alpha, scale)) return { product, g: product.a };
  }
  return undefined;
}

/** The product that a sum consists of, if it is one alone. */
function onlyProduct(sum: Sum | undefined): Product | undefined {
  return sum?.products.length === 1 && sum.others.length === 0 ? sum.products[0] : undefined;
}

function isSame(a: number, b: number): boolean {
  return Math.abs(a - b) <= 1e-9 * Math.abs(b);
}

/** Sums by the frozen weights that they multiply untransposed. */
export function sumsByWeight(sums: ReadonlyMap<Node, Sum>): Map<Node, Sum[]> {
  const found = new Map<Node, Sum[]>();
  for (const sum of sums.values())
    for (const { b, transA, transB } of sum.products)
      if (isFrozen(b) && !transA && !transB) found.set(b, [...(found.get(b) ?? []), sum]);
  return found;
}
