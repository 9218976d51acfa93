import { type Graph, rootsOf, withRoots } from "../../ir/graph.ts";
import type { Node } from "../../ir/node.ts";
import { rewrite } from "../../ir/rewrite.ts";
import type { OnnxProfile } from "../../ir/rules.ts";
import { cse } from "../../passes/cse.ts";
import { dropBits } from "../../passes/drop-bits.ts";
import { expand } from "../../passes/expand.ts";
import { dropMark, foldNode } from "../../passes/fold.ts";
import { fuse } from "../../passes/fuse.ts";
import { quantize, type Storage } from "../../passes/quantize.ts";
import { rematerialize } from "../../passes/rematerialize.ts";
import { hasLowering } from "./has-lowering.ts";

/** How each frozen weight of a graph is kept in memory. */
export type ChooseStorage = (roots: readonly Node[]) => (weight: Node) => Storage;

/**
 * `graph` in ops that `profile` has lowerings for: each value computed once, but for cheap ones that the backward
 * pass computes again; frozen weights as they are stored; sums and scales inside products.
 */
export function lowerGraph(graph: Graph, profile: OnnxProfile, choose: ChooseStorage): Graph {
  const lower = (roots: readonly Node[]): Node[] =>
    expand(roots, (node) => hasLowering(node, profile));
  const once = cse(rewrite(lower(rootsOf(graph)), dropMark, dropBits, foldNode));
  const gradients = Object.values(withRoots(graph, once).gradients);
  const results = once.filter((root) => !gradients.includes(root));
  const again = new Map(
    rematerialize(results, gradients).map((gradient, i) => [gradients[i]!, gradient]),
  );
  const roots = once.map((root) => again.get(root) ?? root);
  return withRoots(graph, lower(fuse(quantize(roots, choose(roots)))));
}
