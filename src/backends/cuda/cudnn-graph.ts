/** @file cuDNN operation graphs under construction: tensors, and the operations that attention consists of. */
import { type Cudnn, DATA, DESCRIPTOR, descriptor, TYPE } from "./ffi/cudnn.ts";

/** Sizes or strides of four axes: batch, heads, rows, columns. */
export type Dims = readonly [number, number, number, number];
type DataType = (typeof DATA)[keyof typeof DATA];

/** A tensor of a graph. */
export interface Tensor {
  readonly handle: bigint;
  readonly dims: Dims;
}

/** A tensor that a graph reads or writes. */
interface TensorSpec {
  readonly id: number;
  readonly dims: Dims;
  readonly strides: Dims;
  readonly type: DataType;
  /** A number in host memory. */
  readonly isByValue?: boolean;
}

/** A graph under construction: tensors between operations are virtual. */
export interface GraphBuilder {
  tensor(spec: TensorSpec): Tensor;
  virtual(dims: Dims, type?: DataType, strides?: Dims): Tensor;
  pointwise(mode: number, x: Tensor, options: PointwiseOptions): Tensor;
  matmul(a: Tensor, b: Tensor, into: Tensor): Tensor;
  /** @param operator 0: sum, 3: largest */
  reduce(operator: 0 | 3, x: Tensor, into: Tensor): Tensor;
  reshape(x: Tensor, into: Tensor): Tensor;
  readonly operations: bigint[];
}

interface PointwiseOptions {
  readonly b?: Tensor;
  readonly select?: Tensor;
  readonly axis?: number;
  readonly into?: Tensor;
  readonly compute?: DataType;
  readonly type?: DataType;
}

/** Strides of a tensor without gaps. */
export function dense([, h, s, d]: Dims): Dims {
  return [h * s * d, s * d, d, 1];
}

/** An empty graph. */
export function newGraph(library: Cudnn): GraphBuilder {
  const operations: bigint[] = [];
  let fresh = 1000;
  const add = (type: number, fields: readonly (readonly [number, bigint])[]): void => {
    operations.push(
      descriptor(
        library,
        type,
        fields.map(([name, handle]) => [name, TYPE.descriptor, [handle]]),
      ),
    );
  };
  const builder: GraphBuilder = {
    operations,
    tensor: (spec) => makeTensor(library, spec, false),
    virtual: (dims, type = DATA.f32, strides = dense(dims)) =>
      makeTensor(library, { id: fresh++, dims, strides, type }, true),
    pointwise(mode, x, options) {
      const { b, select, into, type = DATA.f32 } = options;
      const y = into ?? builder.virtual(x.dims, type);
      const operands: (readonly [number, bigint])[] = [
        [750, pointwiseDescriptor(library, mode, options)],
        [751, x.handle],
      ];
      if (b) operands.push([752, b.handle]);
      if (select) operands.push([758, select.handle]);
      add(DESCRIPTOR.operationPointwise, [...operands, [753, y.handle]]);
      return y;
    },
    matmul(a, b, into) {
      const description = descriptor(library, DESCRIPTOR.matmul, [
        [1500, TYPE.dataType, [DATA.f32]],
      ]);
      const handles = [a.handle, b.handle, into.handle, description];
      add(
        DESCRIPTOR.operationMatmul,
        handles.map((at, i) => [1520 + i, at] as const),
      );
      return into;
    },
    reduce(operator, x, into) {
      const description = descriptor(library, DESCRIPTOR.reduction, [
        [1600, TYPE.reductionOperator, [operator]],
        [1601, TYPE.dataType, [DATA.f32]],
      ]);
      const operands = [x.handle, into.handle, description].map((at, i) => [1610 + i, at] as const);
      add(DESCRIPTOR.operationReduction, operands);
      return into;
    },
    reshape(x, into) {
      const operands = [x.handle, into.handle].map((at, i) => [2200 + i, at] as const);
      add(DESCRIPTOR.operationReshape, operands);
      return into;
    },
  };
  return builder;
}

function makeTensor(
  library: Cudnn,
  { id, dims, strides, type, isByValue = false }: TensorSpec,
  isVirtual: boolean,
): Tensor {
  const handle = descriptor(library, DESCRIPTOR.tensor, [
    [906, TYPE.int64, [id]],
    [901, TYPE.dataType, [type]],
    [902, TYPE.int64, dims],
    [903, TYPE.int64, strides],
    [900, TYPE.int64, [16]],
    [907, TYPE.boolean, [isVirtual ? 1 : 0]],
    ...(isByValue ? ([[908, TYPE.boolean, [1]]] as const) : []),
  ]);
  return { dims, handle };
}

function pointwiseDescriptor(
  library: Cudnn,
  mode: number,
  { axis, compute = DATA.f32 }: PointwiseOptions,
): bigint {
  return descriptor(library, DESCRIPTOR.pointwise, [
    [0, TYPE.pointwiseMode, [mode]],
    [1, TYPE.dataType, [compute]],
    ...(axis === undefined ? [] : ([[9, TYPE.int64, [axis]]] as const)),
  ]);
}
