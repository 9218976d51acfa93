/** @file How batches of matrix products become ONNX nodes. */
import type { Node } from "../ir/node.ts";
import type { OnnxEmitter, OnnxValue } from "../ir/rules.ts";
import { sizeOf } from "../tensor/shape.ts";

/** A product over the last two axes of `node`'s inputs. */
export interface BatchedProduct {
  readonly a: OnnxValue;
  readonly b: OnnxValue;
  readonly alpha: number;
  readonly transA: boolean;
  readonly transB: boolean;
  readonly node: Node;
}

/** Multiplications below which a product is not worth two more nodes. */
const SMALL = 2 ** 21;

/**
 * alpha · a·b for `cpu`, of any rank. ONNX Runtime gives each thread whole products, so that of an odd number of them
 * one thread computes one more while the others wait: these are halved, by rows of the result or by terms of its sums.
 */
export function emitBatched(emit: OnnxEmitter, product: BatchedProduct): OnnxValue {
  const { a, b, transA, transB, node } = product;
  const batch = sizeOf(node.shape.slice(0, -2));
  const [M, N] = node.shape.slice(-2) as [number, number];
  const K = node.inputs[0]!.shape.at(transA ? -2 : -1)!;
  const halved = transA ? K : M;
  const isOdd = batch % 2 === 1 && batch > 1 && halved % 2 === 0 && !(transA && transB);
  if (!isOdd || batch * M * N * K < SMALL) return emitProduct(emit, product);
  const view = (x: OnnxValue, shape: readonly number[]): OnnxValue =>
    emit.node("Reshape", [x, emit.ints(shape)]);
  if (!transA) {
    const rows = view(a, [batch, 2, M / 2, K]);
    const whole = view(b, transB ? [batch, 1, N, K] : [batch, 1, K, N]);
    return view(emitProduct(emit, { ...product, a: rows, b: whole }), node.shape);
  }
  const left = view(a, [batch, 2, K / 2, M]);
  const right = view(b, [batch, 2, K / 2, N]);
  const parts = emitProduct(emit, { ...product, a: left, b: right });
  const sum = emit.node("ReduceSum", [parts, emit.ints([1])], { keepdims: 0 });
  return node.shape.length === 3 ? sum : view(sum, node.shape);
}

function emitProduct(
  emit: OnnxEmitter,
  { a, b, alpha, transA, transB }: BatchedProduct,
): OnnxValue {
  if (alpha === 1 && !transA && !transB) return emit.node("MatMul", [a, b]);
  const flags = { transA: Number(transA), transB: Number(transB) };
  return emit.node("com.microsoft.FusedMatMul", [a, b], {
    ...flags,
    ...(alpha !== 1 && { alpha }),
  });
}
