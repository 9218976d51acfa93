import { topological } from "../../ir/graph.ts";
import type { Node } from "../../ir/node.ts";
import { gatherRows } from "../../ops/gather-rows.ts";
import { isQuantizable, type Storage } from "../../passes/quantize.ts";
import { sizeOf } from "../../tensor/shape.ts";
import type { WeightSource } from "../backend.ts";

/** How the frozen base is kept: `auto` is f32, or 16 bits as stored where f32 would need a large temporary file. */
export type BaseDType = "auto" | "f32" | "bf16" | "int8" | "nf4";

/** Bytes of f32 copies of 16-bit weights that `auto` accepts. */
const LARGEST_COPY = 2 ** 30;

/**
 * The storage of each frozen weight of `roots` when the base is kept as `base`. Vectors are f32, and so are matrices
 * of 16 bits that the vocabulary makes large, unless only rows of them are read: widening one for each product would
 * need as much memory as keeping it.
 */
export function chooseStorage(
  roots: readonly Node[],
  source: WeightSource,
  base: BaseDType,
): (weight: Node) => Storage {
  const multiplied = new Set<Node>();
  for (const node of topological(roots))
    for (const input of node.inputs) if (node.op !== gatherRows.rules) multiplied.add(input);
  const half = base === "bf16" || !fitsWidened(source, base);
  return (weight) => {
    const { name, shape } = weight;
    if ((base === "int8" || base === "nf4") && isQuantizable(name!, shape)) return base;
    if (!half || base === "f32" || shape.length < 2) return "f32";
    const isHead = multiplied.has(weight) && !isQuantizable(name!, shape) && shape.length === 2;
    if (isHead) return "f32";
    const { dtype } = source.get(name!);
    if (base === "bf16") return "bf16";
    return dtype === "bf16" || dtype === "f16" ? dtype : "f32";
  };
}

/** Whether the weights that have 16 bits, and stay unquantized, are few enough to be widened once. */
function fitsWidened(source: WeightSource, base: BaseDType): boolean {
  let bytes = 0;
  for (const name of source.names) {
    const { dtype, shape } = source.get(name);
    const isCoded = (base === "int8" || base === "nf4") && isQuantizable(name, shape);
    if (!isCoded && (dtype === "bf16" || dtype === "f16")) bytes += 4 * sizeOf(shape);
  }
  return bytes <= LARGEST_COPY;
}
