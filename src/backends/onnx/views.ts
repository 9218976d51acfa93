import type { OnnxValue } from "../../ir/rules.ts";
import { sameShape, type Shape } from "../../tensor/shape.ts";
import type { OnnxNode } from "./proto.ts";

/** Nodes, and what is known of their values. */
export interface KnownNodes {
  readonly nodes: readonly OnnxNode[];
  readonly shapes: ReadonlyMap<OnnxValue, Shape>;
  /** Values of integer constants. */
  readonly lists: ReadonlyMap<OnnxValue, readonly number[]>;
}

/**
 * The nodes, where what is reshaped twice is reshaped once, from the first value to the last shape, or not at all
 * where that is its own; without those that neither another node nor `results` reads. For graphs whose shapes are
 * constants without zeros.
 */
export function joinViews(
  { nodes, shapes, lists }: KnownNodes,
  results: ReadonlySet<OnnxValue>,
): OnnxNode[] {
  const sources = new Map<OnnxValue, OnnxValue>();
  const same = new Map<OnnxValue, OnnxValue>();
  const joined = nodes.map((node) => {
    if (node.opType !== "Reshape") {
      if (!node.inputs.some((input) => same.has(input))) return node;
      return { ...node, inputs: node.inputs.map((input) => same.get(input) ?? input) };
    }
    const [x, list] = node.inputs as [OnnxValue, OnnxValue];
    const [output, source] = [node.outputs[0]!, sources.get(x) ?? x];
    sources.set(output, source);
    const [own, wanted] = [shapes.get(source), lists.get(list)];
    if (own && wanted && sameShape(own, wanted) && !results.has(output)) same.set(output, source);
    return source === x ? node : { ...node, inputs: [source, list] };
  });
  const read = new Set(results);
  const kept = joined.reverse().filter(({ inputs, outputs }) => {
    if (!outputs.some((output) => read.has(output))) return false;
    for (const input of inputs) read.add(input);
    return true;
  });
  return kept.reverse();
}
