/** @file Sizes of a graph that differ from run to run, found by building it twice. */
import { LorikeetError } from "../../errors.ts";
import { topological } from "../../ir/graph.ts";
import type { Node } from "../../ir/node.ts";
import { broadcastTo } from "../../ops/broadcast-to.ts";
import { leaves } from "../../ops/leaf.ts";
import { reshape } from "../../ops/reshape.ts";

/** Rows of a batch and tokens a row. */
export interface RunSize {
  readonly batch: number;
  readonly length: number;
}

/** A size: `factor`, times the batch's rows, times its tokens a row where these are set. */
export interface OpenSize {
  readonly factor: number;
  readonly byBatch: boolean;
  readonly byLength: boolean;
}

/** A graph for any batch: one of its builds, and the sizes of each of its nodes. */
export interface OpenGraph {
  readonly roots: readonly Node[];
  readonly sizesOf: (node: Node) => readonly OpenSize[];
}

/** Two batches whose sizes and product have different ratios, so that every size of a graph tells what it comes from. */
const [FIRST, SECOND]: readonly [RunSize, RunSize] = [
  { batch: 2, length: 3 },
  { batch: 5, length: 7 },
];

/**
 * Builds the same graph for two batches and reads off which of its sizes follow the batch. No op needs to know of
 * open sizes: only `reshape`, `broadcastTo` and constants name whole shapes, all other attributes must be equal.
 * @throws LorikeetError `unsupported-onnx` where the two differ in anything else
 */
export function openSizes(build: (size: RunSize) => readonly Node[]): OpenGraph {
  const [roots, others] = [build(FIRST), build(SECOND)];
  const [nodes, twins] = [topological(roots), topological(others)];
  if (nodes.length !== twins.length) throw differs(`${nodes.length} and ${twins.length} nodes`);
  const sizes = new Map<Node, readonly OpenSize[]>();
  for (const [i, node] of nodes.entries()) {
    const twin = twins[i]!;
    if (!isAlike(node, twin)) throw differs(`${node.op.name} and ${twin.op.name}`);
    sizes.set(
      node,
      node.shape.map((dim, axis) => openSize(node, dim, twin.shape[axis])),
    );
  }
  return { roots, sizesOf: (node) => sizes.get(node)! };
}

/** Whether a size follows the batch. */
export function isOpen({ byBatch, byLength }: OpenSize): boolean {
  return byBatch || byLength;
}

const NAMES_SHAPE = new Set([reshape.rules, broadcastTo.rules]);

function isAlike(node: Node, twin: Node): boolean {
  if (node.op !== twin.op || node.name !== twin.name || node.dtype !== twin.dtype) return false;
  if (node.shape.length !== twin.shape.length) return false;
  const isSame = NAMES_SHAPE.has(node.op) || JSON.stringify(node.attrs) === JSON.stringify(twin.attrs); // prettier-ignore
  const values = node.op === leaves.literal ? [node.value!.data.join(), twin.value!.data.join()] : ["", ""]; // prettier-ignore
  return isSame && values[0] === values[1];
}

function openSize(node: Node, a: number, b: number | undefined): OpenSize {
  const candidates = [
    { byBatch: false, byLength: false },
    { byBatch: true, byLength: false },
    { byBatch: false, byLength: true },
    { byBatch: true, byLength: true },
  ];
  for (const { byBatch, byLength } of candidates) {
    const factorOf = (size: number, { batch, length }: RunSize): number =>
      size / ((byBatch ? batch : 1) * (byLength ? length : 1));
    const factor = factorOf(a, FIRST);
    if (Number.isInteger(factor) && factor === factorOf(b!, SECOND))
      return { factor, byBatch, byLength };
  }
  throw differs(`sizes ${a} and ${b} of ${node.op.name}`);
}

function differs(what: string): LorikeetError {
  return new LorikeetError(
    "unsupported-onnx",
    `Expected a model whose graph is the same for every batch, got ${what} for two of them`,
    { hint: "Write it as safetensors or GGUF." },
  );
}
