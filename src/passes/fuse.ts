import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";
import { add } from "../ops/add.ts";
import { gemm } from "../ops/gemm.ts";
import { leaves } from "../ops/leaf.ts";
import { matmul } from "../ops/matmul.ts";
import { mul } from "../ops/mul.ts";
import { scaledMatmul } from "../ops/scaled-matmul.ts";
import { sameShape } from "../tensor/shape.ts";

interface Scaling {
  /** Absent on `matmul`, whose factor is 1. */
  readonly alpha?: number;
  readonly transA: boolean;
  readonly transB: boolean;
}

/** alpha · a·b, either matrix read transposed. */
interface Product extends Required<Scaling> {
  readonly a: Node;
  readonly b: Node;
}

/**
 * Moves scalar factors into the products that they scale, and sums into the products that they add: a LoRA layer
 * becomes two products, the second of which adds into the first. For engines whose product is
 * C + alpha·A·B; for after `gradient`, as a value that another node reads stays as it is.
 */
export function fuse(roots: readonly Node[]): Node[] {
  const uses = countUses(roots);
  const absorbable = new Set<Node>();
  return rewrite(roots, (node, original) => {
    for (const [i, input] of node.inputs.entries())
      if (uses.get(original.inputs[i]!) === 1) absorbable.add(input);
    const fused = fuseScales(node, absorbable) ?? fuseSum(node, absorbable);
    return fused && node.phase ? { ...fused, phase: node.phase } : fused;
  });
}

function countUses(roots: readonly Node[]): Map<Node, number> {
  const uses = new Map<Node, number>();
  const count = (node: Node): void => {
    uses.set(node, (uses.get(node) ?? 0) + 1);
  };
  roots.forEach(count);
  for (const node of topological(roots)) node.inputs.forEach(count);
  return uses;
}

/** c·x into alpha, where x is an operand of a product or a product that nothing else reads. */
function fuseScales(node: Node, absorbable: ReadonlySet<Node>): Node | undefined {
  const product = productOf(node);
  if (product) {
    const [a, b] = [scaledOf(product.a), scaledOf(product.b)];
    if (!a && !b) return undefined;
    const alpha = product.alpha * (a?.factor ?? 1) * (b?.factor ?? 1);
    return build({ ...product, a: a?.of ?? product.a, b: b?.of ?? product.b, alpha });
  }
  const scaled = scaledOf(node);
  const inner = scaled && absorbable.has(scaled.of) ? productOf(scaled.of) : undefined;
  return inner && build({ ...inner, alpha: inner.alpha * scaled!.factor });
}

/** x + product into one product that starts from x. */
function fuseSum(node: Node, absorbable: Set<Node>): Node | undefined {
  if (node.op !== add.rules || node.shape.length !== 2) return undefined;
  const [x, y] = node.inputs as [Node, Node];
  for (const [from, into] of [
    [x, y],
    [y, x],
  ] as const)
    if (sameShape(into.shape, node.shape) && isSum(into) && absorbable.has(into))
      return addInto(from, into, absorbable);
  return undefined;
}

/** from + into: `from` goes to the start of the chain of products that `into` is. */
function addInto(from: Node, into: Node, absorbable: Set<Node>): Node {
  const chain: Node[] = [];
  let start: Node | undefined = into;
  while (start && absorbable.has(start) && isSum(start)) {
    chain.push(start);
    start = start.op === gemm.rules ? start.inputs[2] : undefined;
  }
  let sum = start ? add(from, start) : from;
  for (const [i, link] of chain.reverse().entries()) {
    const [a, b] = link.inputs as [Node, Node];
    const { alpha = 1, transA, transB } = link.attrs as unknown as Scaling;
    if (i > 0) absorbable.add(sum); // this link alone reads it
    sum = gemm(a, b, sum, { alpha, transA, transB });
  }
  return sum;
}

function isSum(node: Node): boolean {
  return node.op === gemm.rules || productOf(node) !== undefined;
}

function productOf({ op, inputs, attrs }: Node): Product | undefined {
  if (op !== matmul.rules && op !== scaledMatmul.rules) return undefined;
  const [a, b] = inputs as [Node, Node];
  const { alpha = 1, transA, transB } = attrs as unknown as Scaling;
  return { a, b, alpha, transA, transB };
}

function build({ a, b, alpha, transA, transB }: Product): Node {
  if (alpha === 1) return matmul(a, b, { transA, transB });
  return scaledMatmul(a, b, { alpha, transA, transB });
}

/** x and c when `node` is c·x with a scalar constant c. */
function scaledOf(node: Node): { factor: number; of: Node } | undefined {
  if (node.op !== mul.rules) return undefined;
  const [x, y] = node.inputs as [Node, Node];
  for (const [constant, of] of [
    [x, y],
    [y, x],
  ] as const)
    if (constant.op === leaves.constant && sameShape(of.shape, node.shape))
      return { factor: constant.attrs["value"] as number, of };
  return undefined;
}
