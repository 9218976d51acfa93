/** @file Gives groups of linear layers with adapters their places; see lora.ts for the algebra. */
import type { Node } from "../../../ir/node.ts";
import { type Kernel, loadModule } from "../kernels.ts";
import type { WeightBlock } from "../weights.ts";
import type { PlanContext } from "./context.ts";
import { isColumns, type LoraBackward, type LoraGroup, type LoraMember } from "./lora.ts";
import type { Matrix } from "./products.ts";
import type { Sum } from "./sums.ts";
import { addressOf, newValue, rowStride, STORAGE_BYTES, type Value } from "./value.ts";

const BORDER = 64;

/** A group whose values have their places. */
export interface PlacedGroup {
  readonly group: LoraGroup;
  readonly block: WeightBlock;
  /** Border columns that the adapters take, each a multiple of eight; the rest of its columns are zeros. */
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
  const widths = members.map(borderWidth);
  const rank = widths.reduce((sum, width) => sum + width, 0);
  const border = Math.ceil(rank / BORDER) * BORDER;
  const names = members.map(({ weight }) => weight.name!);
  const isFree =
    (rank === 0 || canPlace(context, x, columns)) &&
    (members.length === 1 ||
      members.every(({ sum: { node } }) => canPlace(context, node, node.shape.at(-1)!))) &&
    members.every(({ adapter }) => !adapter || !context.values.has(adapter.u));
  if (!isFree || !canAdd(context, members[0]!.sum)) return undefined;
  const block = context.weights.placeBlock({
    names,
    shapes: members.map(({ weight }) => weight.shape),
    storage: precision,
    border,
  });
  if (!block) return undefined;
  const tokens = members[0]!.sum.node.shape[0]!;
  const rows = offsets(members.map(({ weight }) => weight.shape[0]!));
  const ranks = offsets(widths);
  const placed = { group, block, rank, rows, ranks, tokens };
  if (!placeAdapters(context, placed)) return undefined;
  if (rank > 0) {
    const us = members.map(
      ({ adapter }, i) => adapter && { node: adapter.u, width: adapter.rank, room: widths[i]! },
    );
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

/** Border columns for a layer's adapter: kernels read eight at a time. */
function borderWidth({ adapter }: Pick<LoraMember, "adapter">): number {
  return Math.ceil((adapter?.rank ?? 0) / 8) * 8;
}

function offsets(sizes: readonly number[]): number[] {
  let end = 0;
  return sizes.map((size) => (end += size) - size);
}

/** Whether `node` may be a column range of a wider matrix; matrix products write rows of their last axis. */
function canPlace({ plan, values, sums }: PlanContext, node: Node, columns: number): boolean {
  return (
    node.inputs.length > 0 &&
    !values.has(node) &&
    (!sums.has(node) || node.shape.at(-1) === columns) &&
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
  parts: readonly ({ node: Node; width: number; room?: number } | undefined)[],
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
    offset += part.room ?? part.width;
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
    const at = (
      node: Node,
      home: Value,
      [row, column]: readonly [number, number],
      factor: number,
    ): Value => {
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
    const a = at(adapter.a, block.a, [ranks[i]!, 0], 1);
    const b = at(adapter.b, block.b, [rows[i]!, ranks[i]!], adapter.scale);
    return a.region === block.a.region && b.region === block.b.region && b.factor === adapter.scale;
  });
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
  const gs = members.map((member) =>
    member.g
      ? { node: member.g, width: member.adapter!.rank, room: borderWidth(member) }
      : undefined,
  );
  const border = Math.ceil(placed.rank / BORDER) * BORDER;
  placeColumns(context, [...parts, ...gs], placed.tokens, placed.block.rows + border);
  return true;
}

function rowsOf(node: Node, weight: Node): number {
  return node.shape.reduce((size, dim) => size * dim, 1) / weight.shape[0]!;
}

/**
 * The weights of a block with their border, as one matrix. Quantized weights are decoded into memory of the plan:
 * once for the forward pass, once for the backward pass of a block together with what it recomputes.
 */
export function weightsOf(
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
export function blockAt(weights: Value, row: number, column: number): Matrix {
  return { value: { ...weights, factor: 1 }, offset: row * weights.ld + column, ld: weights.ld };
}

/** A copy place of a block as a matrix. */
export function placeOf(value: Value): Matrix {
  return {
    value: { ...value, factor: 1 },
    offset: value.offset,
    ld: rowStride(value, value.shape[1]!)!,
  };
}
