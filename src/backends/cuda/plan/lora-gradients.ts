/** @file Units of the gradients of adapters that lie together. */
import type { Node } from "../../../ir/node.ts";
import { choiceUnit, jointUnit, waysOf } from "./choice.ts";
import { addUnit, type PlanContext, storedValue } from "./context.ts";
import type { Adapter, LoraBackward } from "./lora.ts";
import type { PlacedGroup } from "./lora-place.ts";
import { gemmCall, type Matrix, matrixOf } from "./products.ts";
import type { UpBackward } from "./lora-up-backward.ts";
import { bothCalls } from "./skinny-both.ts";
import { tokensCall } from "./skinny.ts";

/** The gradients of all A of a group together: dA = gᵀ·x, rows of one array. */
export function addGradientsOfA(
  context: PlanContext,
  placed: PlacedGroup,
  { members }: LoraBackward,
  x: Node,
): void {
  const { block, rank, tokens } = placed;
  const source = storedValue(context, x);
  const dy = storedValue(context, members[0]!.dy);
  const gs = members.flatMap(({ g }) => (g ? [storedValue(context, g)] : []));
  const gradients = members.flatMap(({ adapter }) =>
    adapter ? [context.state.value(adapter.a.name!, ".grad")] : [],
  );
  const g: Matrix = { value: dy, offset: dy.offset + block.rows, ld: dy.ld };
  const d: Matrix = { value: gradients[0]!, offset: 0, ld: block.columns };
  const from = matrixOf(source, block.columns);
  const call = gemmCall(context, {
    M: rank,
    N: block.columns,
    K: tokens,
    transA: true,
    a: g,
    b: from,
    c: d,
    d,
  });
  const parts = [{ x: from, g, out: gradients[0]!, F: block.columns }];
  const own = tokensCall(context, {
    T: tokens,
    N: rank,
    factor: 1,
    strideF: 1,
    strideN: block.columns,
    parts,
  });
  const unit = choiceUnit({
    name: "lora A gradient",
    ways: waysOf([call], own),
    reads: [source, ...gs],
    writes: gradients,
  });
  addUnit(context, members[0]!.dy, { ...unit, isEager: true });
}

/**
 * The gradients of all B of a group together: dB = scale · dyᵀ·u; and with them, where one kernel can take both, `up`,
 * the gradients through B. Whether it does.
 */
export function addGradientsOfB(
  context: PlanContext,
  { tokens }: PlacedGroup,
  parts: readonly { readonly dy: Node; readonly u: Node; readonly adapter: Adapter }[],
  up: UpBackward | undefined,
): boolean {
  const [first] = parts;
  const { rank, scale } = first!.adapter;
  const operands = parts.map(({ dy, u, adapter }) => {
    const [x, g] = [storedValue(context, dy), storedValue(context, u)];
    const out = context.state.value(adapter.b.name!, ".grad");
    return {
      F: adapter.b.shape[0]!,
      out,
      x: { value: x, offset: x.offset, ld: x.ld },
      g: { value: g, offset: g.offset, ld: g.ld },
    };
  });
  const shape = { N: rank, K: tokens, transA: true, alpha: scale };
  const calls = operands.map(({ F, out, x, g }) => {
    const d = { value: out, offset: 0, ld: rank };
    return gemmCall(context, { ...shape, M: F, a: x, b: g, c: d, d });
  });
  const own = tokensCall(context, {
    T: tokens,
    N: rank,
    factor: scale,
    strideF: rank,
    strideN: 1,
    parts: operands,
  });
  const reads = operands.flatMap(({ x, g }) => [x.value, g.value]);
  const writes = operands.map(({ out }) => out);
  const ways = waysOf(calls, own);
  // what is computed again only for the gradients of B must not be needed any earlier
  const isKept = parts.every(({ u }) => u.phase !== "recompute");
  const lows = isKept && up?.parts?.length === operands.length ? up.parts : undefined;
  const both = lows
    ? bothCalls(context, {
        ...{ T: tokens, N: rank, factor: scale },
        parts: operands.map(({ x, g: u, out: high, F }, i) => {
          const { w, out: low } = lows[i]!;
          return { x, w, u, low, high, F };
        }),
      })
    : [];
  if (up && both.length > 0) {
    const all = { reads: [...up.reads, ...reads], writes: [...up.writes, ...writes] };
    addUnit(context, up.at, jointUnit([up.ways, ways], both, { name: "lora B backward", ...all }));
    return true;
  }
  const unit = choiceUnit({ name: "lora B gradient", ways, reads, writes });
  addUnit(context, first!.dy, { ...unit, isEager: true });
  return false;
}
