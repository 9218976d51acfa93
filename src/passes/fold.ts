import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { broadcastTo } from "../ops/broadcast-to.ts";
import { constant, leaves } from "../ops/leaf.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { slice } from "../ops/slice.ts";
import { stopGradient } from "../ops/stop-gradient.ts";
import { transpose } from "../ops/transpose.ts";
import { sameShape } from "../tensor/shape.ts";

/** Removes work that is known before running: arithmetic on constants, x·1, x+0, moves that change nothing. */
export function fold(roots: readonly Node[]): Node[] {
  return rewrite(roots, foldNode);
}

/** The rule of `fold`. */
export function foldNode(node: Node): Node | undefined {
  return foldConstants(node) ?? foldNeutral(node) ?? foldMoves(node);
}

/** Removes marks that only passes read (block boundaries, gradient stops). For just before an engine lowers a graph. */
export function dropMarks(roots: readonly Node[]): Node[] {
  return rewrite(roots, dropMark);
}

/** The rule of `dropMarks`. */
export function dropMark(node: Node): Node | undefined {
  return node.op === boundary.rules || node.op === stopGradient.rules ? node.inputs[0] : undefined;
}

/** An elementwise op on scalar constants is a constant. */
function foldConstants(node: Node): Node | undefined {
  const { op, inputs, shape, dtype } = node;
  if (!op.evaluate || inputs.length === 0) return undefined;
  if (!inputs.every((input) => input.op === leaves.constant && sameShape(input.shape, [])))
    return undefined;
  if (shape.length > 0) return undefined;
  const values = inputs.map(({ attrs }) => ({
    shape: [],
    data: Float64Array.of(attrs["value"] as number),
  }));
  return constant(op.evaluate(node, values)[0]!, [], dtype);
}

function foldNeutral(node: Node): Node | undefined {
  if (node.op !== mul.rules && node.op !== add.rules) return undefined;
  const neutral = node.op === mul.rules ? 1 : 0;
  const [a, b] = node.inputs as [Node, Node];
  if (isConstant(b, neutral) && sameShape(a.shape, node.shape)) return a;
  if (isConstant(a, neutral) && sameShape(b.shape, node.shape)) return b;
  return undefined;
}

function foldMoves(node: Node): Node | undefined {
  const source = node.inputs[0];
  if (!source) return undefined;
  if (node.op === reshape.rules || node.op === broadcastTo.rules) {
    if (sameShape(source.shape, node.shape)) return source;
    const first = source.inputs[0];
    if (first && node.op === source.op && node.op === reshape.rules) {
      if (sameShape(first.shape, node.shape)) return first;
      return { ...reshape(first, { shape: node.shape }), ...phaseOf(node) };
    }
    if (node.op === broadcastTo.rules && source.op === leaves.constant)
      return constant(source.attrs["value"] as number, node.shape, node.dtype);
  }
  if (node.op === transpose.rules) return foldTranspose(node, source);
  if (node.op === slice.rules && sameShape(source.shape, node.shape)) return source;
  return undefined;
}

function foldTranspose(node: Node, source: Node): Node | undefined {
  const perm = node.attrs["perm"] as readonly number[];
  if (perm.every((axis, i) => axis === i)) return source;
  if (source.op === transpose.rules) {
    const inner = source.attrs["perm"] as readonly number[];
    if (perm.every((axis, i) => inner[axis] === i)) return source.inputs[0];
  }
  const long = perm.filter((axis) => source.shape[axis] !== 1);
  if (long.some((axis, i) => i > 0 && axis < long[i - 1]!)) return undefined;
  return { ...reshape(source, { shape: node.shape }), ...phaseOf(node) };
}

function phaseOf(node: Node): { phase?: "recompute" } {
  return node.phase ? { phase: node.phase } : {};
}

function isConstant(node: Node, value: number): boolean {
  return node.op === leaves.constant && node.attrs["value"] === value;
}
