import type { OnnxNode } from "./proto.ts";

/**
 * `nodes` where what is reshaped twice is reshaped once, from the first value to the last shape, and nothing stands
 * that neither another node nor `results` reads. For graphs whose shapes are constants without zeros.
 */
export function joinViews(nodes: readonly OnnxNode[], results: ReadonlySet<string>): OnnxNode[] {
  const sources = new Map<string, string>();
  const joined = nodes.map((node) => {
    if (node.opType !== "Reshape") return node;
    const [x, shape] = node.inputs as [string, string];
    const source = sources.get(x) ?? x;
    sources.set(node.outputs[0]!, source);
    return source === x ? node : { ...node, inputs: [source, shape] };
  });
  const read = new Set(results);
  const kept = joined.reverse().filter(({ inputs, outputs }) => {
    if (!outputs.some((output) => read.has(output))) return false;
    for (const input of inputs) read.add(input);
    return true;
  });
  return kept.reverse();
}
