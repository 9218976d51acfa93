/** @file Computes groups of linear layers with adapters; see lora.ts for the algebra. */
import { choiceUnit, waysOf } from "./choice.ts";
import { addUnit, type PlanContext, storedValue } from "./context.ts";
import type { LoraBackward } from "./lora.ts";
import { blockAt, type PlacedGroup, placeOf, weightsOf } from "./lora-place.ts";
import {
  gemmCall,
  type GemmCall,
  matrixOf,
  type Matrix,
  operand,
  productCall,
} from "./products.ts";
import { rowsCall } from "./skinny.ts";

/** Units of the forward pass: u = x·Aᵀ, then y = [x | u]·[W | sB]ᵀ (or in two steps, whichever is faster). */
export function addForward(context: PlanContext, placed: PlacedGroup): void {
  const { group, block, rank, tokens } = placed;
  const { members } = group;
  const columns = block.columns;
  const from = operand(context, group.x, context.plan.precision, columns);
  const x = from.value;
  const us = members.flatMap(({ adapter }) => (adapter ? [storedValue(context, adapter.u)] : []));
  const u: Matrix = { value: x, offset: from.offset + columns, ld: from.ld };
  const first = members[0]!.sum.node;
  const weights = weightsOf(context, placed, first, first.phase === "recompute");
  if (rank > 0) {
    const a = placeOf(block.a);
    const call = gemmCall(context, {
      M: tokens,
      N: rank,
      K: columns,
      transB: true,
      a: from,
      b: a,
      d: u,
    });
    const own = rowsCall(context, {
      T: tokens,
      N: rank,
      parts: [{ x: from, w: a, out: u, K: columns }],
    });
    const last = members.findLast(({ adapter }) => adapter)!.adapter!;
    addUnit(
      context,
      last.u,
      choiceUnit({ name: "lora down", ways: waysOf([call], own), reads: [x], writes: us }),
    );
  }
  const ys = members.map(({ sum }) => storedValue(context, sum.node));
  const d = matrixOf(ys[0]!, members.length > 1 ? ys[0]!.cols : block.rows);
  const other = members[0]!.sum.others.map((node) => storedValue(context, node));
  const c = other[0] && matrixOf(other[0], block.rows);
  const shape = { M: tokens, N: block.rows, transB: true, d } as const;
  const both = gemmCall(context, {
    ...shape,
    K: columns + rank,
    a: from,
    b: blockAt(weights, 0, 0),
    c,
  });
  // the adapter's part first: it is small, so its rounding costs less
  const added = gemmCall(context, { ...shape, K: rank, a: u, b: placeOf(block.b), c });
  const base = gemmCall(context, {
    ...shape,
    K: columns,
    a: from,
    b: blockAt(weights, 0, 0),
    c: rank > 0 ? d : c,
  });
  const rest = members.flatMap((member, i) => {
    const target = matrixOf(ys[i]!, member.sum.node.shape[1]!);
    return member.rest.map((product) => productCall(context, product, target, target));
  });
  const reads = [x, ...us, ...other, weights];
  addUnit(
    context,
    members.at(-1)!.sum.node,
    choiceUnit({
      name: "lora forward",
      ways: rank > 0 ? [[both], [added, base]] : [[base]],
      rest,
      reads,
      writes: ys,
    }),
  );
}

/** Units of the backward pass: g = dy·sB, dx = [dy | g]·[W ; A], and all dA in one product when they lie together. */
export function addBackward(
  context: PlanContext,
  placed: PlacedGroup,
  backward: LoraBackward,
): void {
  const { block, rank, tokens } = placed;
  const { members, sum, rest } = backward;
  const dys = members.map(({ dy }) => storedValue(context, dy));
  const gs = members.flatMap(({ g }) => (g ? [storedValue(context, g)] : []));
  const from: Matrix = { value: dys[0]!, offset: dys[0]!.offset, ld: dys[0]!.ld };
  const g: Matrix = { ...from, offset: from.offset + block.rows };
  const isWhole = gs.length > 0 && members.every(({ adapter, g: low }) => !adapter || low);
  if (isWhole) {
    const call = gemmCall(context, {
      M: tokens,
      N: rank,
      K: block.rows,
      a: from,
      b: placeOf(block.b),
      d: g,
    });
    const own = upBackwardCall(context, placed, members);
    addUnit(
      context,
      members.findLast((member) => member.g)!.g!,
      choiceUnit({ name: "lora up backward", ways: waysOf([call], own), reads: dys, writes: gs }),
    );
  }
  const dx = storedValue(context, sum.node);
  const d = matrixOf(dx, block.columns);
  const other = sum.others.map((node) => storedValue(context, node));
  const c = other[0] && matrixOf(other[0], block.columns);
  const shape = { M: tokens, N: block.columns, d } as const;
  const weights = weightsOf(context, placed, sum.node, true);
  const base = gemmCall(context, {
    ...shape,
    K: block.rows,
    a: from,
    b: blockAt(weights, 0, 0),
    c: isWhole ? d : c,
  });
  const both = gemmCall(context, {
    ...shape,
    K: block.rows + rank,
    a: from,
    b: blockAt(weights, 0, 0),
    c,
  });
  const added = gemmCall(context, { ...shape, K: rank, a: g, b: placeOf(block.a), c });
  const more = rest.map((product) => productCall(context, product, d, d));
  const reads = [...dys, ...(isWhole ? gs : []), ...other, weights];
  addUnit(
    context,
    sum.node,
    choiceUnit({
      name: "lora backward",
      ways: isWhole ? [[both], [added, base]] : [[base]],
      rest: more,
      reads,
      writes: [dx],
    }),
  );
}

/** g of all members by the kernel for short sides, if their ranks are equal. */
function upBackwardCall(
  context: PlanContext,
  { tokens }: PlacedGroup,
  members: LoraBackward["members"],
): GemmCall | undefined {
  const adapted = members.filter(({ adapter, g }) => adapter && g);
  const rank = adapted[0]!.adapter!.rank;
  if (adapted.some(({ adapter }) => adapter!.rank !== rank)) return undefined;
  const parts = adapted.map(({ dy, g, adapter }) => {
    const [x, out] = [storedValue(context, dy), storedValue(context, g!)];
    const w = context.state.transposedOf(adapter!.b.name!);
    const K = w.shape[1]!;
    return {
      K,
      w: { value: w, offset: 0, ld: K },
      x: { value: x, offset: x.offset, ld: x.ld },
      out: { value: out, offset: out.offset, ld: out.ld },
    };
  });
  return rowsCall(context, { T: tokens, N: rank, parts });
}
