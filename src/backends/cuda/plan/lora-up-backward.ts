/** @file Gradients through the B of adapters that lie together: g = dy·sB. */
import type { Node } from "../../../ir/node.ts";
import { type Choice, waysOf } from "./choice.ts";
import { type PlanContext, storedValue } from "./context.ts";
import type { LoraBackward } from "./lora.ts";
import { type PlacedGroup, placeOf } from "./lora-place.ts";
import { gemmCall, type Matrix } from "./products.ts";
import { rowsCall, type RowsSpec } from "./skinny.ts";

/** How g of a group can be computed, and where in the graph it stands. */
export interface UpBackward extends Pick<Choice, "ways" | "reads" | "writes"> {
  readonly at: Node;
  /** What a kernel for short sides takes, by member, if the ranks are equal. */
  readonly parts: RowsSpec["parts"] | undefined;
}

/** g of all members of a group, or undefined when it is not part of the group's products. */
export function upBackward(
  context: PlanContext,
  placed: PlacedGroup,
  { members }: LoraBackward,
): UpBackward | undefined {
  const { block, rank, tokens } = placed;
  const adapted = members.filter(({ adapter, g }) => adapter && g);
  if (adapted.length === 0 || members.some(({ adapter, g }) => adapter && !g)) return undefined;
  const reads = members.map(({ dy }) => storedValue(context, dy));
  const writes = adapted.map(({ g }) => storedValue(context, g!));
  const [dy] = reads as [(typeof reads)[number]];
  const from: Matrix = { value: dy, offset: dy.offset, ld: dy.ld };
  const d: Matrix = { ...from, offset: from.offset + block.rows };
  const shape = { M: tokens, N: rank, K: block.rows } as const;
  const call = gemmCall(context, { ...shape, a: from, b: placeOf(block.b), d });
  const parts = partsOf(context, adapted);
  const N = adapted[0]!.adapter!.rank;
  const own = parts && rowsCall(context, { T: tokens, N, parts });
  return { ways: waysOf([call], own), reads, writes, at: adapted.at(-1)!.g!, parts };
}

function partsOf(
  context: PlanContext,
  adapted: LoraBackward["members"],
): RowsSpec["parts"] | undefined {
  const { rank } = adapted[0]!.adapter!;
  if (adapted.some(({ adapter }) => adapter!.rank !== rank)) return undefined;
  return adapted.map(({ dy, g, adapter }) => {
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
}
