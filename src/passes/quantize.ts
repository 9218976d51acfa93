import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";
import { cast } from "../ops/cast.ts";
import { dequantizeNf4 } from "../ops/dequantize-nf4.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { isFrozen, parameter } from "../ops/leaf.ts";
import { matmul } from "../ops/matmul.ts";
import { mul } from "../ops/mul.ts";
import { nf4Linear } from "../ops/nf4-linear.ts";
import { reshape } from "../ops/reshape.ts";
import { NF4_BLOCK } from "../tensor/quantize.ts";
import { sizeOf } from "../tensor/shape.ts";

/** How a frozen weight is kept in memory. */
export type Storage = "f32" | "f16" | "bf16" | "int8" | "nf4";

/** Names of the tensors that hold a quantized weight, and what they are. */
export const partName = (weight: string, part: "int8" | "scale" | "nf4" | "absmax"): string =>
  `${weight}#${part}`;

/** The weight and the part that a name of `partName` means, or undefined for other names. */
export function parsePart(name: string): { weight: string; part: string } | undefined {
  const found = /^(.*)#(int8|scale|nf4|absmax)$/.exec(name);
  return found ? { weight: found[1]!, part: found[2]! } : undefined;
}

/** Weights that quantization leaves alone, as bitsandbytes does: embeddings and output heads. */
const FULL = /(^|\.)(lm_head|embed_tokens|embed_out|wte|wpe|score|classifier)\./;

/** Whether a weight of that name and shape is kept in 4 or 8 bits: a matrix of a hidden layer with rows of whole blocks. */
export function isQuantizable(name: string, shape: readonly number[]): boolean {
  return shape.length === 2 && shape[1]! % NF4_BLOCK === 0 && !FULL.test(name);
}

/**
 * Replaces each frozen weight by what is stored of it and its decoding, which joins the products that read it where
 * that costs less: scales of rows go to the other operand, 4-bit codes into the product itself. Computation stays f32.
 */
export function quantize(roots: readonly Node[], storageOf: (weight: Node) => Storage): Node[] {
  const storages = new Map<Node, Storage>();
  const storage = (leaf: Node | undefined): Storage => {
    if (!leaf || !isFrozen(leaf)) return "f32";
    const known = storages.get(leaf) ?? storageOf(leaf);
    storages.set(leaf, known);
    return known;
  };
  if (topological(roots).every((node) => storage(node) === "f32")) return [...roots];
  return rewrite(roots, (node, original) => {
    if (isFrozen(original)) {
      const kept = storage(original);
      return kept === "f32" ? undefined : decode(original, kept);
    }
    const replaced = readCoded(node, original, storage);
    return replaced && node.phase ? { ...replaced, phase: node.phase } : replaced;
  });
}

/** What stands for `node` when it reads a coded weight in a way that has a shorter form. */
function readCoded(
  node: Node,
  original: Node,
  storage: (leaf: Node | undefined) => Storage,
): Node | undefined {
  if (node.op === gatherRows.rules) {
    const [table] = original.inputs as [Node, Node];
    const kept = storage(table);
    if (kept !== "f16" && kept !== "bf16") return undefined;
    return cast(gatherRows(halfOf(table, kept), node.inputs[1]!), { dtype: table.dtype });
  }
  if (node.op !== matmul.rules || node.attrs["transA"] === true) return undefined;
  const x = node.inputs[0]!;
  const weight = original.inputs[1]!;
  const transB = node.attrs["transB"] === true;
  const [rows, columns] = weight.shape as [number, number];
  if (storage(weight) === "nf4" && transB) {
    const { codes, absmax } = nf4Of(weight);
    return nf4Linear(x, codes, absmax, { shape: [rows, columns] });
  }
  if (storage(weight) !== "int8") return undefined;
  const { codes, scale } = int8Of(weight);
  const factors = reshape(scale, { shape: [rows] });
  if (transB) return mul(matmul(x, codes, { transB }), factors);
  return matmul(mul(x, factors), codes);
}

/** The whole weight from what is stored. */
function decode(weight: Node, storage: Exclude<Storage, "f32">): Node {
  if (storage === "nf4") {
    const { codes, absmax } = nf4Of(weight);
    return dequantizeNf4(codes, absmax, { shape: weight.shape });
  }
  if (storage === "int8") {
    const { codes, scale } = int8Of(weight);
    return mul(codes, scale);
  }
  return cast(halfOf(weight, storage), { dtype: weight.dtype });
}

function halfOf({ name, shape }: Node, dtype: "f16" | "bf16"): Node {
  return parameter(name!, shape, { dtype });
}

function int8Of({ name, shape, dtype }: Node): { codes: Node; scale: Node } {
  const codes = parameter(partName(name!, "int8"), shape, { dtype: "i8" });
  const scale = parameter(partName(name!, "scale"), [shape[0]!, 1]);
  return { codes: cast(codes, { dtype }), scale };
}

function nf4Of({ name, shape }: Node): { codes: Node; absmax: Node } {
  const size = sizeOf(shape);
  const codes = parameter(partName(name!, "nf4"), [size / 2], { dtype: "u8" });
  return { codes, absmax: parameter(partName(name!, "absmax"), [size / NF4_BLOCK]) };
}
