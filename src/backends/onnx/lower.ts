import { type Graph, rootsOf, withRoots } from "../../ir/graph.ts";
import type { Node } from "../../ir/node.ts";
import type { OnnxProfile } from "../../ir/rules.ts";
import { cse } from "../../passes/cse.ts";
import { expand } from "../../passes/expand.ts";
import { dropMarks, fold } from "../../passes/fold.ts";
import { fuse } from "../../passes/fuse.ts";
import { rematerialize } from "../../passes/rematerialize.ts";
import { hasLowering } from "./has-lowering.ts";

/**
 * `graph` in ops that `profile` has lowerings for: each value computed once, but for cheap ones that the backward
 * pass computes again; sums and scales inside products.
 */
export function lowerGraph(graph: Graph, profile: OnnxProfile): Graph {
  const lower = (roots: readonly Node[]): Node[] =>
    expand(roots, (node) => hasLowering(node, profile));
  const once = cse(fold(dropMarks(lower(rootsOf(graph)))));
  const outputs = once.slice(0, Object.keys(graph.outputs).length);
  const gradients = rematerialize(outputs, once.slice(outputs.length));
  return withRoots(graph, lower(fuse([...outputs, ...gradients])));
}
