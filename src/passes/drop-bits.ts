import type { Node } from "../ir/node.ts";
import { cast } from "../ops/cast.ts";
import { constant } from "../ops/leaf.ts";
import { mul } from "../ops/mul.ts";
import { randomKeep } from "../ops/random-keep.ts";
import { randomMask } from "../ops/random-mask.ts";
import type { Shape } from "../tensor/shape.ts";

/**
 * A rule that makes dropout by truth values: x·mask becomes x·(0 or 1)·1/(1−p). What the backward pass keeps is a byte
 * an element instead of four, and the factor joins the product that follows.
 */
export function dropBits(node: Node): Node | undefined {
  if (node.op !== mul.rules) return undefined;
  const mask = node.inputs.find((input) => input.op === randomMask.rules);
  const x = node.inputs.find((input) => input !== mask);
  if (!mask || !x || x.shape.join() !== mask.shape.join()) return undefined;
  const attrs = mask.attrs as unknown as { shape: Shape; p: number; stream: number };
  const again = node.phase && { phase: node.phase };
  const isKept = {
    ...randomKeep(mask.inputs[0]!, attrs),
    ...(mask.phase && { phase: mask.phase }),
  };
  const bits = { ...cast(isKept, { dtype: x.dtype }), ...again };
  const kept = { ...mul(x, bits), ...again };
  return { ...mul(kept, constant(1 / (1 - attrs.p))), ...again };
}
