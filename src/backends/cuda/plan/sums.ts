/** @file Sums of matrix products: what becomes a chain of GEMMs that add into one result. */
import { rootsOf } from "../../../ir/graph.ts";
import type { Node } from "../../../ir/node.ts";
import { add } from "../../../ops/add.ts";
import { matmul } from "../../../ops/matmul.ts";
import { sameShape } from "../../../tensor/shape.ts";
import { type PlanGraph, stripReshape, stripScale } from "./graph.ts";

/** alpha · a·b, either matrix read transposed. Operands are stripped of scalar factors and reshapes. */
export interface Product {
  readonly node: Node;
  readonly a: Node;
  readonly b: Node;
  readonly alpha: number;
  readonly transA: boolean;
  readonly transB: boolean;
}

/** node = Σ products + Σ others, all of its shape. */
export interface Sum {
  readonly node: Node;
  readonly products: readonly Product[];
  readonly others: readonly Node[];
}

/** Sums by the node that they give. A node inside a sum that nothing else uses is not computed for itself. */
export function findSums({ order, users, graph }: PlanGraph): Map<Node, Sum> {
  const roots = new Set(rootsOf(graph));
  const isPrivate = (node: Node): boolean => users.get(node)!.length === 1 && !roots.has(node);
  const inside = new Set<Node>();
  const sums = new Map<Node, Sum>();
  for (const node of [...order].reverse()) {
    if (inside.has(node)) continue;
    const found = flatten(node, isPrivate);
    if (found.products.length === 0) continue;
    sums.set(node, found.sum);
    for (const each of found.inside) inside.add(each);
  }
  return sums;
}

/** A term of a sum that may fall apart into more. */
interface Term {
  readonly node: Node;
  readonly factor: number;
  /** What the term is when it does not: the node with its factors. */
  readonly outer: Node;
}

function flatten(
  top: Node,
  isPrivate: (node: Node) => boolean,
): { sum: Sum; products: Product[]; inside: Node[] } {
  const products: Product[] = [];
  const others: Node[] = [];
  const inside: Node[] = [];
  const stack: Term[] = [{ node: top, factor: 1, outer: top }];
  while (stack.length > 0) {
    const term = stack.pop()!;
    const { node, outer } = term;
    const isOpen = node === top || isPrivate(node);
    const terms = isOpen ? termsOf(term) : undefined;
    const scaled = isOpen && !terms ? scaledProduct(term, isPrivate) : undefined;
    const isProduct = isOpen && node.op === matmul.rules;
    if ((terms || scaled || isProduct) && node !== top) inside.push(node);
    if (terms) stack.push(...terms.reverse());
    else if (scaled) {
      inside.push(...between(node, scaled.node));
      stack.push(scaled);
    } else if (isProduct) products.push(productOf(term, isPrivate));
    else others.push(outer);
  }
  return { sum: { node: top, products, others }, products, inside };
}

/** The terms of an addition whose sides have its own shape, where no factor applies to it. */
function termsOf({ node, factor }: Term): Term[] | undefined {
  const [a, b] = node.inputs;
  const isSum =
    node.op === add.rules &&
    factor === 1 &&
    a !== b &&
    node.inputs.every((input) => sameShape(input.shape, node.shape));
  return isSum ? node.inputs.map((input) => ({ node: input, factor, outer: input })) : undefined;
}

/** The product that `node` is a multiple of, if nothing else uses it. */
function scaledProduct(
  { node, factor, outer }: Term,
  isPrivate: (node: Node) => boolean,
): Term | undefined {
  const { alpha, core } = stripScale(node);
  const isAlone =
    core !== node &&
    core.op === matmul.rules &&
    sameShape(core.shape, node.shape) &&
    isPrivate(core);
  return isAlone ? { node: core, factor: factor * alpha, outer } : undefined;
}

/** Nodes from below `node` down to `core`: the factors between them. */
function between(node: Node, core: Node): Node[] {
  const path: Node[] = [];
  for (let at = node; at !== core;) {
    at = at.inputs.find(
      (input) => sameShape(input.shape, core.shape) && stripScale(input).core === core,
    )!;
    path.push(at);
  }
  return path;
}

function productOf({ node, factor }: Term, isPrivate: (node: Node) => boolean): Product {
  const [a, b] = node.inputs.map((input) => operandOf(input, isPrivate)) as [
    ReturnType<typeof operandOf>,
    ReturnType<typeof operandOf>,
  ];
  return {
    node,
    a: a.core,
    b: b.core,
    alpha: factor * a.alpha * b.alpha,
    transA: node.attrs["transA"] === true,
    transB: node.attrs["transB"] === true,
  };
}

/**
 * An operand without scalar factors and reshapes, which the product takes over; factors of a product that nothing else
 * uses stay with that.
 */
function operandOf(input: Node, isPrivate: (node: Node) => boolean): { alpha: number; core: Node } {
  let [alpha, core] = [1, input];
  for (;;) {
    const scaled = stripScale(core);
    const isScaledProduct = scaled.core !== core && scaled.core.op === matmul.rules;
    if (isScaledProduct && isPrivate(scaled.core)) return { alpha, core };
    const plain = stripReshape(scaled.core);
    alpha *= scaled.alpha;
    if (plain === core) return { alpha, core };
    core = plain;
  }
}
