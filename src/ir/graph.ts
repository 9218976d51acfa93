import type { Node } from "./node.ts";

/** What an engine compiles: named results, and the gradient of the loss for each trainable parameter. */
export interface Graph {
  readonly outputs: Readonly<Record<string, Node>>;
  readonly gradients: Readonly<Record<string, Node>>;
  /**
   * New rows (B, T, …) of caches that live in the engine. The graph reads a cache through an input of that name,
   * (B, P, …); after a run the rows stand in it from slot `cache_offset` (a feed) on.
   */
  readonly caches?: Readonly<Record<string, Node>>;
}

/** Every result of `graph`: outputs, gradients, rows of caches. */
export function rootsOf({ outputs, gradients, caches = {} }: Graph): Node[] {
  return [outputs, gradients, caches].flatMap((results) => Object.values(results));
}

/** `graph` with its results replaced by `roots`, in the order of `rootsOf`. */
export function withRoots(graph: Graph, roots: readonly Node[]): Graph {
  let next = 0;
  const take = (entries: Readonly<Record<string, Node>>): Record<string, Node> =>
    Object.fromEntries(Object.keys(entries).map((name) => [name, roots[next++]!]));
  const outputs = take(graph.outputs);
  const gradients = take(graph.gradients);
  return { outputs, gradients, ...(graph.caches && { caches: take(graph.caches) }) };
}

/** All nodes that `roots` depend on, inputs before users. A loop, as graphs are deeper than the stack. */
export function topological(roots: readonly Node[]): Node[] {
  const order: Node[] = [];
  const seen = new Set<Node>();
  const stack: Node[] = [];
  const next: number[] = [];
  for (const root of roots) {
    if (seen.has(root)) continue;
    seen.add(root);
    stack.push(root);
    next.push(0);
    while (stack.length > 0) {
      const top = stack.length - 1;
      const input = stack[top]!.inputs[next[top]!++];
      if (!input) {
        order.push(stack.pop()!);
        next.pop();
      } else if (!seen.has(input)) {
        seen.add(input);
        stack.push(input);
        next.push(0);
      }
    }
  }
  return order;
}
