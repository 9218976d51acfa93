/** @file Computes groups of linear layers with adapters; see lora.ts for the algebra. */
import type { Node } from "../../../ir/node.ts";
import { choiceUnit, waysOf } from "./choice.ts";
import { addUnit, type PlanContext, storedValue } from "./context.ts";
import { fp8Call, isFp8Rows } from "./fp8-units.ts";
import type { LoraBackward } from "./lora.ts";
import { blockAt, type PlacedGroup, placeOf, weightsOf } from "./lora-place.ts";
import {
  type CallSpec,
  gemmCall,
  type GemmCall,
  matrixOf,
  type Matrix,
  operand,
  productCall,
} from "./products.ts";
import { upBackward } from "./lora-up-backward.ts";
import { rowsCall } from "./skinny.ts";
import type { Value } from "./value.ts";

/** Units of the forward pass: u = x·Aᵀ, then y = [x | u]·[W | sB]ᵀ (or in two steps, whichever is faster). */
export function addForward(context: PlanContext, placed: PlacedGroup): void {
  const { group, block, rank, tokens } = placed;
  const { members } = group;
  const { columns } = block;
  const from = operand(context, group.x, context.plan.precision, columns);
  const us = members.flatMap(({ adapter }) => (adapter ? [storedValue(context, adapter.u)] : []));
  const u: Matrix = { value: from.value, offset: from.offset + columns, ld: from.ld };
  if (rank > 0) addDown(context, placed, { from, u, us });
  const first = members[0]!.sum.node;
  const ys = members.map(({ sum }) => storedValue(context, sum.node));
  const d = matrixOf(ys[0]!, members.length > 1 ? ys[0]!.cols : block.rows);
  const other = members[0]!.sum.others.map((node) => storedValue(context, node));
  const c = other[0] && matrixOf(other[0], block.rows);
  const ways = waysOfPair(context, {
    placed,
    shape: { M: tokens, N: block.rows, K: columns, transB: true, a: from, c, d },
    low: rank > 0 ? { a: u, b: placeOf(block.b) } : undefined,
    user: first,
    isBackward: first.phase === "recompute",
    reads: [from.value],
  });
  const rest = members.flatMap((member, i) => {
    const target = matrixOf(ys[i]!, member.sum.node.shape[1]!);
    return member.rest.map((product) => productCall(context, product, target, target));
  });
  const reads = [from.value, ...us, ...other, ...ways.reads];
  addUnit(
    context,
    members.at(-1)!.sum.node,
    choiceUnit({ name: "lora forward", ways: ways.ways, rest, reads, writes: ys }),
  );
}

/** The unit of u = x·Aᵀ. */
function addDown(
  context: PlanContext,
  { group: { members }, block, rank, tokens }: PlacedGroup,
  { from, u, us }: { from: Matrix; u: Matrix; us: readonly Value[] },
): void {
  const a = placeOf(block.a);
  const K = block.columns;
  const call = gemmCall(context, { M: tokens, N: rank, K, transB: true, a: from, b: a, d: u });
  const parts = [{ x: from, w: a, out: u, K }];
  const own = rowsCall(context, { T: tokens, N: rank, parts });
  const last = members.findLast(({ adapter }) => adapter)!.adapter!;
  const ways = waysOf([call], own);
  const unit = choiceUnit({ name: "lora down", ways, reads: [from.value], writes: us });
  addUnit(context, last.u, unit);
}

interface Pair {
  readonly placed: PlacedGroup;
  /** The product with the frozen matrix. */
  readonly shape: Omit<CallSpec, "b">;
  /** The product with the adapters, whose columns follow those of the other. */
  readonly low: { readonly a: Matrix; readonly b: Matrix } | undefined;
  readonly user: Node;
  readonly isBackward: boolean;
  /** What the activations consist of. */
  readonly reads: readonly Value[];
}

/**
 * The product with the frozen matrix and with the adapters beside it: as one, or one after another, the adapters' first,
 * as it is small and so its rounding costs less. `reads`: the frozen matrix, where it is decoded for the plan.
 */
function waysOfPair(
  context: PlanContext,
  { placed, shape, low, user, isBackward, reads }: Pair,
): { ways: GemmCall[][]; reads: Value[] } {
  const { block, rank } = placed;
  const { d, c } = shape;
  const added = low && gemmCall(context, { ...shape, ...low, K: rank, c });
  const base = { ...shape, c: low ? d : c };
  const { fp8 } = block;
  if (fp8 && isFp8Rows(shape.M)) {
    const alone = fp8Call(context, {
      ...{ node: user, x: shape.a, reads, K: shape.K, N: shape.N, tokens: shape.M, d, c: base.c },
      w: () => (shape.transB ? fp8().straight : fp8().transposed),
    });
    return { ways: [added ? [added, alone] : [alone]], reads: [...alone.reads] };
  }
  const weights = weightsOf(context, placed, user, isBackward);
  const b = blockAt(weights, 0, 0);
  const alone = gemmCall(context, { ...base, b });
  if (!added) return { ways: [[alone]], reads: [weights] };
  const both = gemmCall(context, { ...shape, K: shape.K + rank, b });
  return { ways: [[both], [added, alone]], reads: [weights] };
}

/** Units of the backward pass: g = dy·sB unless `hasLow`, then dx = [dy | g]·[W ; A]. */
export function addBackward(
  context: PlanContext,
  placed: PlacedGroup,
  backward: LoraBackward,
  hasLow: boolean,
): void {
  const { members, sum, rest } = backward;
  const { block, tokens } = placed;
  const dys = members.map(({ dy }) => storedValue(context, dy));
  const from: Matrix = { value: dys[0]!, offset: dys[0]!.offset, ld: dys[0]!.ld };
  const g: Matrix = { ...from, offset: from.offset + block.rows };
  const up = upBackward(context, placed, backward);
  if (up && !hasLow) {
    const { ways, reads, writes, at } = up;
    addUnit(context, at, choiceUnit({ name: "lora up backward", ways, reads, writes }));
  }
  const dx = storedValue(context, sum.node);
  const d = matrixOf(dx, block.columns);
  const other = sum.others.map((node) => storedValue(context, node));
  const c = other[0] && matrixOf(other[0], block.columns);
  const { ways, reads } = waysOfPair(context, {
    placed,
    shape: { M: tokens, N: block.columns, K: block.rows, a: from, c, d },
    low: up ? { a: g, b: placeOf(block.a) } : undefined,
    user: sum.node,
    isBackward: true,
    reads: dys,
  });
  const more = rest.map((product) => productCall(context, product, d, d));
  const unit = choiceUnit({
    ...{ name: "lora backward", ways, rest: more, writes: [dx] },
    reads: [...dys, ...(up ? up.writes : []), ...other, ...reads],
  });
  addUnit(context, sum.node, unit);
}
