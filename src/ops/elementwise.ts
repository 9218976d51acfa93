/** @file Loops and definitions that all elementwise ops share. */
import type { Node } from "../ir/node.ts";
import { ONNX_TYPES } from "../ir/onnx-types.ts";
import type { OpCase, Value } from "../ir/rules.ts";
import { broadcastShapes, sameShape, type Shape, sizeOf, stridesOf } from "../tensor/shape.ts";
import { checkDtypes, defineOp, type Op, shapeError } from "./define.ts";

/** For each element of `shape`, the offset of the element of `from` that broadcasts to it. */
export function broadcastOffsets(from: Shape, shape: Shape): Int32Array {
  const rank = shape.length;
  const own = stridesOf(from);
  const strides = shape.map((_, axis) => {
    const source = axis - rank + from.length;
    return source < 0 || from[source] === 1 ? 0 : own[source]!;
  });
  const offsets = new Int32Array(sizeOf(shape));
  const index = new Array<number>(rank).fill(0);
  let offset = 0;
  for (let i = 0; i < offsets.length; i++) {
    offsets[i] = offset;
    for (let axis = rank - 1; axis >= 0; axis--) {
      offset += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      offset -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return offsets;
}

/** `f` over two values with broadcasting, row-major in `shape`. */
export function mapPairs(
  a: Value,
  b: Value,
  shape: Shape,
  f: (x: number, y: number) => number,
): Float64Array {
  const out = new Float64Array(sizeOf(shape));
  const [left, right] = [a, b].map((value) =>
    sameShape(value.shape, shape) ? undefined : broadcastOffsets(value.shape, shape),
  );
  for (let i = 0; i < out.length; i++)
    out[i] = f(a.data[left ? left[i]! : i]!, b.data[right ? right[i]! : i]!);
  return out;
}

/** What differs between ops of one argument. */
export interface UnarySpec {
  readonly f: (x: number) => number;
  /** d(loss)/dx from the op's argument, its result and dy. */
  readonly gradient: (context: { x: Node; y: Node; dy: Node }) => Node;
  readonly onnx: string;
  /**
   * WebGPU's own function is too coarse. In float64, which WebGPU does not have, ONNX Runtime computes it on the CPU.
   * https://gpuweb.github.io/gpuweb/wgsl/#concrete-float-accuracy
   */
  readonly isCoarseOnWebgpu?: boolean;
  readonly cases: readonly OpCase[];
}

/** An elementwise primitive of one argument with a standard ONNX op. */
export function defineUnary(
  name: string,
  { f, gradient, onnx, isCoarseOnWebgpu = false, cases }: UnarySpec,
): Op<["x"]> {
  return defineOp(name, {
    inputs: ["x"],
    infer: ({ x }) => x,
    evaluate: ({ x }) => x.data.map(f),
    gradient: ({ x, node, dy }) => ({ x: () => gradient({ x, y: node, dy }) }),
    onnx(emit, { x, node }) {
      if (!isCoarseOnWebgpu || emit.profile !== "webgpu") return emit.node(onnx, [x]);
      const wide = emit.node("Cast", [x], { to: ONNX_TYPES.f64 });
      return emit.node("Cast", [emit.node(onnx, [wide])], { to: ONNX_TYPES[node.dtype] });
    },
    cases,
  });
}

/** What differs between ops of two arguments. */
export interface BinarySpec {
  readonly f: (x: number, y: number) => number;
  /** d(loss)/dx and d(loss)/dy before summing over broadcast axes. */
  readonly gradient?: (context: { a: Node; b: Node; node: Node; dy: Node }) => {
    a: () => Node;
    b: () => Node;
  };
  readonly onnx: string;
  /** The result is true or false. */
  readonly isPredicate?: boolean;
  readonly cases: readonly OpCase[];
}

/** An elementwise primitive of two arguments that broadcast by NumPy's rule. */
export function defineBinary(name: string, spec: BinarySpec): Op<["a", "b"]> {
  const { f, gradient, onnx, cases } = spec;
  return defineOp(name, {
    inputs: ["a", "b"],
    infer({ a, b }) {
      const shape = broadcastShapes(a.shape, b.shape);
      if (!shape) throw shapeError(name, "shapes that broadcast", { a, b });
      checkDtypes(name, { a, b });
      return { shape, dtype: spec.isPredicate ? "bool" : a.dtype };
    },
    evaluate: ({ a, b, node }) => mapPairs(a, b, node.shape, f),
    ...(gradient && { gradient: ({ a, b, node, dy }) => gradient({ a, b, node, dy }) }),
    onnx: (emit, { a, b }) => emit.node(onnx, [a, b]),
    cases,
  });
}

/** Shapes that exercise every kind of broadcasting. */
export const broadcastCases: readonly OpCase[] = [
  { shapes: { a: [2, 3], b: [2, 3] } },
  { shapes: { a: [2, 3], b: [3] } },
  { shapes: { a: [], b: [2, 2] } },
  { shapes: { a: [2, 1, 3], b: [4, 1] } },
];
