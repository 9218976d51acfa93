/** @file Places and computes groups of linear layers with adapters; see lora.ts for the algebra. */
import type { Node } from "../../../ir/node.ts";
import { type Kernel, loadModule } from "../kernels.ts";
import type { WeightBlock } from "../weights.ts";
import { addUnit, type PlanContext, storedValue } from "./context.ts";
import { type Adapter, isColumns, type LoraBackward, type LoraGroup } from "./lora.ts";
import {
  gemmCall,
  type GemmCall,
  matrixOf,
  type Matrix,
  operand,
  productCall,
} from "./products.ts";
import { rowsCall, tokensCall } from "./skinny.ts";
import type { Sum } from "./sums.ts";
import { addressOf, newValue, rowStride, STORAGE_BYTES, type Unit, type Value } from "./value.ts";

const BORDER = 64;

/** A group whose values have their places. */
export interface PlacedGroup {
  readonly group: LoraGroup;
  readonly block: WeightBlock;
  /** Rank of all adapters together. */
  readonly rank: number;
  /** First row of each member's weight, and first border column of its adapter. */
  readonly rows: readonly number[];
  readonly ranks: readonly number[];
  readonly tokens: number;
}

/** Gives a group's weights, adapters, input and results their places, or returns undefined when one is taken. */
export function placeGroup(context: PlanContext, group: LoraGroup): PlacedGroup | undefined {
  const { members, x } = group;
  const { precision } = context.plan;
  const columns = members[0]!.weight.shape[1]!;
  const rank = members.reduce((sum, { adapter }) => sum + (adapter?.rank ?? 0), 0);
  const border = Math.ceil(rank / BORDER) * BORDER;
  const names = members.map(({ weight }) => weight.name!);
  if (rank > 0 && !canPlace(context, x, columns)) return undefined;
  if (!canAdd(context, members[0]!.sum)) return undefined;
  if (
    members.length > 1 &&
    members.some(({ sum }) => !canPlace(context, sum.node, sum.node.shape.at(-1)!))
  )
    return undefined;
  if (
    members.some(
      ({ adapter }) => adapter && (adapter.rank % 8 !== 0 || context.values.has(adapter.u)),
    )
  )
    return undefined;
  const block = context.weights.placeBlock(
    names,
    members.map(({ weight }) => weight.shape),
    precision,
    border,
  );
  if (!block) return undefined;
  const tokens = members[0]!.sum.node.shape[0]!;
  const rows = offsets(members.map(({ weight }) => weight.shape[0]!));
  const ranks = offsets(members.map(({ adapter }) => adapter?.rank ?? 0));
  const placed = { group, block, rank, rows, ranks, tokens };
  if (!placeAdapters(context, placed)) return undefined;
  if (rank > 0) {
    const us = members.map(({ adapter }) => adapter && { node: adapter.u, width: adapter.rank });
    placeColumns(context, [{ node: x, width: columns }, ...us], tokens, columns + border);
  }
  if (members.length > 1)
    placeColumns(
      context,
      members.map(({ sum, weight }) => ({ node: sum.node, width: weight.shape[0]! })),
      tokens,
      block.rows,
    );
  return placed;
}

function offsets(sizes: readonly number[]): number[] {
  let end = 0;
  return sizes.map((size) => (end += size) - size);
}

function canPlace({ plan, values }: PlanContext, node: Node, columns: number): boolean {
  return (
    node.inputs.length > 0 &&
    !values.has(node) &&
    plan.storage.get(node) === plan.precision &&
    isColumns(plan, node, columns)
  );
}

/** Whether what a sum adds to its products can be read by the product itself. */
function canAdd({ plan }: PlanContext, { others }: Sum): boolean {
  return (
    others.length === 0 || (others.length === 1 && plan.storage.get(others[0]!) === plan.precision)
  );
}

/** Puts nodes side by side into one region of rows of `ld` elements. */
function placeColumns(
  context: PlanContext,
  parts: readonly ({ node: Node; width: number } | undefined)[],
  rows: number,
  ld: number,
): void {
  const { precision } = context.plan;
  const region = { bytes: rows * ld * STORAGE_BYTES[precision], address: 0, isPlanned: true };
  let offset = 0;
  for (const part of parts) {
    if (!part) continue;
    const value: Value = {
      ...newValue(part.node.shape, precision),
      region,
      offset,
      cols: part.width,
      ld,
    };
    context.values.set(part.node, value);
    offset += part.width;
  }
}

/** The copies of A below the weights and of scale·B at their right; false when they are elsewhere already. */
function placeAdapters(
  { state, plan }: PlanContext,
  { group, block, rows, ranks }: PlacedGroup,
): boolean {
  const strideOf = (value: Value): number => rowStride(value, value.shape[1]!)!;
  return group.members.every(({ adapter }, i) => {
    if (!adapter) return true;
    const at = (node: Node, home: Value, row: number, column: number, factor: number): Value => {
      const [cols, ld] = [node.shape[1]!, strideOf(home)];
      const place = {
        region: home.region,
        offset: home.offset + row * ld + column,
        cols,
        ld,
        factor,
      };
      return state.copyOf(node.name!, plan.precision, () => ({
        ...newValue(node.shape, plan.precision),
        ...place,
      }));
    };
    const a = at(adapter.a, block.a, ranks[i]!, 0, 1);
    const b = at(adapter.b, block.b, rows[i]!, ranks[i]!, adapter.scale);
    return a.region === block.a.region && b.region === block.b.region && b.factor === adapter.scale;
  });
}

/**
 * The weights of a block with their border, as one matrix. Quantized weights are decoded into memory of the plan:
 * once for the forward pass, once for the backward pass of a block together with what it recomputes.
 */
function weightsOf(
  context: PlanContext,
  { block, rank }: PlacedGroup,
  user: Node,
  isBackward: boolean,
): Value {
  if (block.matrix) return block.matrix;
  const key = `${isBackward ? "backward" : "forward"} ${block.names.join()}`;
  const known = context.copies.get(key);
  if (known) return known;
  const { rows, columns, border, ld } = block;
  const value = { ...newValue([rows + border, ld], context.plan.precision), cols: ld, ld };
  context.copies.set(key, value);
  const copy = rank > 0 ? copyKernel(context) : undefined;
  context.units.push({
    at: context.order.get(user)! - 0.5,
    unit: {
      name: "decode weights",
      isLate: isBackward,
      reads: [],
      writes: [value],
      scratch: [],
      prepare: () => void copy?.(),
      enqueue() {
        block.decode(value);
        const at = value.region.address;
        const bytes = STORAGE_BYTES[value.storage];
        copy?.().launch([64], 256, [
          addressOf(block.a),
          at + rows * ld * bytes,
          rank,
          columns,
          columns,
          ld,
          1,
        ]);
        copy?.().launch([256], 256, [
          addressOf(block.b),
          at + columns * bytes,
          rows,
          rank,
          border,
          ld,
          1,
        ]);
      },
    },
  });
  return value;
}

function copyKernel({ device, plan }: PlanContext): () => Kernel {
  let kernel: Kernel | undefined;
  return () =>
    (kernel ??= loadModule(device, ["rows"], { T: plan.precision, S: plan.precision }).kernel(
      "convert_rows",
      "ppiiiif",
    ));
}

/** A part of `weights` that starts at `row` and `column`. */
function blockAt(weights: Value, row: number, column: number): Matrix {
  return { value: { ...weights, factor: 1 }, offset: row * weights.ld + column, ld: weights.ld };
}

/** A copy place of a block as a matrix. */
function placeOf(value: Value): Matrix {
  return {
    value: { ...value, factor: 1 },
    offset: value.offset,
    ld: rowStride(value, value.shape[1]!)!,
  };
}

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
    addUnit(context, last.u, choiceUnit("lora down", waysOf([call], own), [], [x], us));
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
  const base = gemmCall(context, { ...shape, K: columns, a: from, b: blockAt(weights, 0, 0), c });
  const added = gemmCall(context, { ...shape, K: rank, a: u, b: placeOf(block.b), c: d });
  const rest = members.flatMap((member, i) => {
    const target = matrixOf(ys[i]!, member.sum.node.shape[1]!);
    return member.rest.map((product) => productCall(context, product, target, target));
  });
  const reads = [x, ...us, ...other, weights];
  addUnit(
    context,
    members.at(-1)!.sum.node,
    choiceUnit("lora forward", rank > 0 ? [[both], [base, added]] : [[base]], rest, reads, ys),
  );
}

/** Places the gradients of a group's results side by side, and g = dy·sB behind them. */
export function placeBackward(
  context: PlanContext,
  placed: PlacedGroup,
  { members, sum }: LoraBackward,
): boolean {
  const fits = members.every(
    ({ dy, weight }) =>
      canPlace(context, dy, weight.shape[0]!) && rowsOf(dy, weight) === placed.tokens,
  );
  const isCoded = !placed.block.matrix;
  const isFree = members.every(({ g }) => !g || !context.values.has(g));
  if (
    !fits ||
    !isFree ||
    !canAdd(context, sum) ||
    (members.length === 1 && !members[0]!.g && !isCoded)
  )
    return false;
  const parts = members.map(({ dy, weight }) => ({ node: dy, width: weight.shape[0]! }));
  const gs = members.map(({ g, adapter }) => (g ? { node: g, width: adapter!.rank } : undefined));
  const border = Math.ceil(placed.rank / BORDER) * BORDER;
  placeColumns(context, [...parts, ...gs], placed.tokens, placed.block.rows + border);
  return true;
}

function rowsOf(node: Node, weight: Node): number {
  return node.shape.reduce((size, dim) => size * dim, 1) / weight.shape[0]!;
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
      choiceUnit("lora up backward", waysOf([call], own), [], dys, gs),
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
    c,
  });
  const both = gemmCall(context, {
    ...shape,
    K: block.rows + rank,
    a: from,
    b: blockAt(weights, 0, 0),
    c,
  });
  const added = gemmCall(context, { ...shape, K: rank, a: g, b: placeOf(block.a), c: d });
  const more = rest.map((product) => productCall(context, product, d, d));
  const reads = [...dys, ...(isWhole ? gs : []), ...other, weights];
  addUnit(
    context,
    sum.node,
    choiceUnit("lora backward", isWhole ? [[both], [base, added]] : [[base]], more, reads, [dx]),
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
  const unit = choiceUnit("lora A gradient", waysOf([call], own), [], [source, ...gs], gradients);
  addUnit(context, members[0]!.dy, { ...unit, isEager: true });
}

/** The gradients of all B of a group together: dB = scale · dyᵀ·u. */
export function addGradientsOfB(
  context: PlanContext,
  { tokens }: PlacedGroup,
  parts: readonly { readonly dy: Node; readonly u: Node; readonly adapter: Adapter }[],
): void {
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
  const calls = operands.map(({ F, out, x, g }) => {
    const d = { value: out, offset: 0, ld: rank };
    return gemmCall(context, {
      M: F,
      N: rank,
      K: tokens,
      transA: true,
      alpha: scale,
      a: x,
      b: g,
      c: d,
      d,
    });
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
  const unit = choiceUnit(
    "lora B gradient",
    waysOf(calls, own),
    [],
    reads,
    operands.map(({ out }) => out),
  );
  addUnit(context, first!.dy, { ...unit, isEager: true });
}

function waysOf(library: readonly GemmCall[], own: GemmCall | undefined): (readonly GemmCall[])[] {
  return own ? [library, [own]] : [library];
}

/** A unit that runs the fastest of several ways to compute the same, then `rest`. */
function choiceUnit(
  name: string,
  ways: readonly (readonly GemmCall[])[],
  rest: readonly GemmCall[],
  reads: readonly Value[],
  writes: readonly Value[],
): Unit {
  let best = ways[0]!;
  return {
    name,
    reads: [...reads, ...rest.flatMap((call) => call.reads)],
    writes,
    scratch: [],
    prepare() {
      let least = Infinity;
      for (const way of ways) {
        const total = way.reduce((sum, call) => sum + call.prepare(), 0);
        if (total < least) [least, best] = [total, way];
      }
      for (const call of rest) call.prepare();
    },
    enqueue() {
      for (const call of [...best, ...rest]) call.enqueue();
    },
  };
}
