import { type Graph, rootsOf, withRoots } from "../../ir/graph.ts";
import type { OnnxProfile } from "../../ir/rules.ts";
import { cse } from "../../passes/cse.ts";
import { expand } from "../../passes/expand.ts";
import { hasLowering } from "./emit.ts";

/** `graph` in ops that `profile` has lowerings for, with what it computes twice merged. */
export function lowerGraph(graph: Graph, profile: OnnxProfile): Graph {
  const expanded = expand(rootsOf(graph), (node) => hasLowering(node, profile));
  return withRoots(graph, cse(expanded));
}
