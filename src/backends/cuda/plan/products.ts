/** @file Units of matrix products: sums as chains of GEMMs that add into their result. */
import { LorikeetError } from "../../../errors.ts";
import type { Node } from "../../../ir/node.ts";
import { isTrainable } from "../../../ops/leaf.ts";
import type { Gemm, GemmSpec } from "../gemm.ts";
import { addUnit, type PlanContext, productStorage, storedValue } from "./context.ts";
import { spaceOf } from "./kernel-space.ts";
import { rowKernel } from "./row-kernel.ts";
import type { Product, Sum } from "./sums.ts";
import {
  newValue,
  rowStride,
  STORAGE_BYTES,
  type Storage,
  type Unit,
  type Value,
} from "./value.ts";

/** A matrix in memory: a value's region from `offset` elements on, with rows `ld` apart. */
export interface Matrix {
  readonly value: Value;
  readonly offset: number;
  readonly ld: number;
}

/** One GEMM call of a unit. */
export interface GemmCall {
  readonly reads: readonly Value[];
  /** Chooses an algorithm; returns its milliseconds if it was timed. */
  prepare(): number;
  enqueue(): void;
}

type GemmType = "bf16" | "f16" | "f32";

/** What a call needs besides its operands. */
export interface CallSpec {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly transA?: boolean;
  readonly transB?: boolean;
  readonly alpha?: number;
  readonly a: Matrix;
  readonly b: Matrix;
  readonly d: Matrix;
  /** Added to the product; d itself accumulates. */
  readonly c?: Matrix | undefined;
  readonly batch?: GemmSpec["batch"];
}

/** Address of the first element of a matrix. */
export function locate({ value, offset }: Matrix): number {
  return value.region.address + offset * STORAGE_BYTES[value.storage];
}

/** The whole of `value` as a matrix of `columns`, if its layout allows. */
export function matrixOf(value: Value, columns: number): Matrix {
  const ld = rowStride(value, columns);
  if (ld === undefined)
    throw new LorikeetError(
      "cuda-plan",
      `Expected a value of rows of ${columns}, it has rows of ${value.cols} every ${value.ld}`,
    );
  return { value, offset: value.offset, ld };
}

/** A call of cuBLASLt; its plan is made once addresses are known. */
export function gemmCall(
  { gemms, scratch }: Pick<PlanContext, "gemms" | "scratch">,
  spec: CallSpec,
): GemmCall {
  const { a, b, d, c, alpha = 1, transA = false, transB = false, M, N, K, batch } = spec;
  let gemm: Gemm | undefined;
  const isKept = !d.value.region.isPlanned;
  if (isKept) {
    const elements = (batch?.count ?? 1) * M * d.ld;
    scratch.bytes = Math.max(scratch.bytes, elements * STORAGE_BYTES[d.value.storage]);
  }
  const operands = (): { a: number; b: number; c: number; d: number } => ({
    a: locate(a),
    b: locate(b),
    c: locate(c ?? d),
    d: locate(d),
  });
  const prepare = (): number => {
    const lds = { lda: a.ld, ldb: b.ld, ldc: (c ?? d).ld, ldd: d.ld };
    const factor = alpha / (a.value.factor * b.value.factor);
    const [type, outType] = [a.value.storage as GemmType, d.value.storage as GemmType];
    const full: GemmSpec = {
      M,
      N,
      K,
      transA,
      transB,
      type,
      outType,
      ...lds,
      alpha: factor,
      beta: c ? 1 : 0,
      ...(batch && { batch }),
    };
    const at = operands();
    // timing must not touch what outlives the program: gradients are written to scratch memory
    const safe = isKept ? { ...at, c: scratch.address, d: scratch.address } : at;
    gemm = gemms.plan(full, safe);
    return gemm.milliseconds;
  };
  return {
    reads: [a.value, b.value, ...(c && c.value !== d.value ? [c.value] : [])],
    prepare,
    enqueue: () => {
      gemm!.enqueue(operands());
    },
  };
}

/** `node` stored as `storage` in rows of `columns`: its value, a parameter's copy, or a converted copy made by a unit. */
export function operand(
  context: PlanContext,
  node: Node,
  storage: Storage,
  columns: number,
): Matrix {
  if (isTrainable(node))
    return matrixOf(context.state.copyOf(node.name!, context.plan.precision), columns);
  const value = storedValue(context, node);
  if (value.storage === storage && rowStride(value, columns) !== undefined)
    return matrixOf(value, columns);
  const key = `${storage} ${String(context.order.get(node))}`;
  const known = context.copies.get(key);
  if (known) return matrixOf(known, columns);
  const copy = newValue(node.shape, storage);
  context.copies.set(key, copy);
  const store = { node, value: copy, accumulate: false };
  const kernel = rowKernel([store], spaceOf(node)!, () => value);
  addUnit(context, node, context.kernels.unit("convert", kernel, [store]));
  return matrixOf(copy, columns);
}

/** The calls that compute `product` into `target`, adding `c` (or what is there, when it is the target itself). */
export function productCall(
  context: PlanContext,
  product: Product,
  target: Matrix,
  c: Matrix | undefined,
): GemmCall {
  const [left, right] = product.node.inputs as [Node, Node];
  const [M, N] = product.node.shape.slice(-2) as [number, number];
  const K = left.shape.at(product.transA ? -2 : -1)!;
  const count = product.node.shape.slice(0, -2).reduce((size, dim) => size * dim, 1);
  const type = typeOf(context, product);
  const a = operand(context, product.a, type, left.shape.at(-1)!);
  const b = operand(context, product.b, type, right.shape.at(-1)!);
  const strides = {
    ...{ a: left.shape.at(-2)! * a.ld, b: right.shape.at(-2)! * b.ld },
    ...{ c: M * (c ?? target).ld, d: M * target.ld },
  };
  const batch = count > 1 ? { count, ...strides } : undefined;
  const { alpha, transA, transB } = product;
  return gemmCall(context, {
    M,
    N,
    K,
    alpha,
    transA,
    transB,
    a,
    b,
    d: target,
    c,
    ...(batch && { batch }),
  });
}

/** Products of trainable parameters alone read their copies, which have the program's precision. */
function typeOf(context: PlanContext, { a, b }: Product): Storage {
  return isTrainable(a) || isTrainable(b) ? context.plan.precision : productStorage(context, a, b);
}

/** A unit for `sum` into `target`; `accumulate` adds to what the target holds. */
export function sumUnit(
  context: PlanContext,
  sum: Sum,
  target: Value,
  options: { accumulate?: boolean; isEager?: boolean } = {},
): Unit {
  const columns = sum.node.shape.at(-1)!;
  const d = matrixOf(target, columns);
  const others = sum.others.map((node) => storedValue(context, node));
  const first = others[0];
  const canRead =
    others.length === 1 &&
    first!.storage === target.storage &&
    rowStride(first!, columns) !== undefined;
  const start = options.accumulate ? d : canRead ? matrixOf(first!, columns) : undefined;
  const isAdded = others.length > 0 && (!canRead || options.accumulate === true);
  const added = isAdded ? addOthers(context, sum, target, options.accumulate ?? false) : undefined;
  const calls = shortestFirst(sum.products).map((product, i) =>
    productCall(context, product, d, i > 0 || added ? d : start),
  );
  return {
    name: sum.products.length > 1 || others.length > 0 ? "gemm sum" : "gemm",
    reads: [...calls.flatMap(({ reads }) => reads), ...others],
    writes: [target],
    scratch: [],
    isEager: options.isEager ?? false,
    prepare() {
      added?.prepare?.();
      for (const call of calls) call.prepare();
    },
    enqueue() {
      added?.enqueue();
      for (const call of calls) call.enqueue();
    },
  };
}

/**
 * Products over few terms (adapters) before long ones: the result is rounded after each, and the first ones are small,
 * so that only the last rounding is one of the whole.
 */
function shortestFirst(products: readonly Product[]): Product[] {
  const terms = ({ node, transA }: Product): number => node.inputs[0]!.shape.at(transA ? -2 : -1)!;
  return [...products].sort((a, b) => terms(a) - terms(b));
}

/** A unit that writes the sum of the terms that are no products. */
function addOthers(
  context: PlanContext,
  { node, others }: Sum,
  target: Value,
  accumulate: boolean,
): Unit {
  const total = others.reduce((sum, other) => ({
    ...node,
    op: ADD,
    attrs: {},
    inputs: [sum, other],
  }));
  const store = { node: total, value: target, accumulate };
  const kernel = rowKernel([store], spaceOf(node)!, (each) => context.values.get(each));
  return context.kernels.unit("add", kernel, [store]);
}

const ADD = { name: "add", inputs: ["a", "b"], cases: [] } as const;
