import type { Node } from "./node.ts";
import type { Rules } from "./rules.ts";

/** A shape of graph to look for: a name captures any node, an op matches a node of it with matching inputs. */
export type Pattern =
  string | { readonly op: Rules; readonly inputs: readonly Pattern[]; readonly as?: string };

/** The pattern of `op` applied to `inputs`. */
export function of(op: { readonly rules: Rules }, ...inputs: Pattern[]): Pattern {
  return { op: op.rules, inputs };
}

/** The nodes that `pattern` captures at `node`, or undefined. A name used twice must capture the same node. */
export function match(pattern: Pattern, node: Node): Record<string, Node> | undefined {
  const captures: Record<string, Node> = {};
  const pending: [Pattern, Node][] = [[pattern, node]];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const [want, got] = next;
    const name = typeof want === "string" ? want : want.as;
    if (name !== undefined) {
      if (captures[name] && captures[name] !== got) return undefined;
      captures[name] = got;
    }
    if (typeof want === "string") continue;
    if (got.op !== want.op || got.inputs.length !== want.inputs.length) return undefined;
    want.inputs.forEach((input, i) => pending.push([input, got.inputs[i]!]));
  }
  return captures;
}
