/** @file Attention as cuDNN operation graphs of matrix products, pointwise ops and reductions, which cuDNN fuses. */
import type { Attention, AttentionSpec, BackwardStrides, ForwardStrides } from "./attention.ts";
import type { Device } from "./device.ts";
import {
  type Cudnn,
  type CudnnPlan,
  DATA,
  DESCRIPTOR,
  descriptor,
  hostFloat,
  MODE,
  openCudnn,
  planOperations,
  TYPE,
} from "./ffi/cudnn.ts";

/** Ids of the tensors that a graph reads and writes. */
const ID = {
  q: 1,
  k: 2,
  v: 3,
  o: 4,
  stats: 5,
  scale: 6,
  hidden: 7,
  dout: 8,
  dq: 9,
  dk: 10,
  dv: 11,
  one: 12,
  sum: 13,
  accumulator: 14,
} as const;

type Dims = readonly [number, number, number, number];
type DataType = (typeof DATA)[keyof typeof DATA];

interface Tensor {
  readonly handle: bigint;
  readonly dims: Dims;
}

/** A graph under construction: tensors between operations are virtual. */
interface GraphBuilder {
  tensor(
    id: number,
    dims: Dims,
    strides: Dims,
    type: DataType,
    options?: { isByValue?: boolean },
  ): Tensor;
  virtual(dims: Dims, type?: DataType, strides?: Dims): Tensor;
  pointwise(
    mode: number,
    x: Tensor,
    options: {
      b?: Tensor;
      select?: Tensor;
      axis?: number;
      into?: Tensor;
      compute?: DataType;
      type?: DataType;
    },
  ): Tensor;
  matmul(a: Tensor, b: Tensor, into: Tensor): Tensor;
  reduce(operator: 0 | 3, x: Tensor, into: Tensor): Tensor;
  reshape(x: Tensor, into: Tensor): Tensor;
  readonly operations: bigint[];
}

function dense([, h, s, d]: Dims): Dims {
  return [h * s * d, s * d, d, 1];
}

function newGraph(library: Cudnn): GraphBuilder {
  const operations: bigint[] = [];
  let fresh = 1000;
  const make = (
    id: number,
    dims: Dims,
    strides: Dims,
    type: number,
    isVirtual: boolean,
    isByValue: boolean,
  ): Tensor => ({
    dims,
    handle: descriptor(library, DESCRIPTOR.tensor, [
      [906, TYPE.int64, [id]],
      [901, TYPE.dataType, [type]],
      [902, TYPE.int64, dims],
      [903, TYPE.int64, strides],
      [900, TYPE.int64, [16]],
      [907, TYPE.boolean, [isVirtual ? 1 : 0]],
      ...(isByValue ? ([[908, TYPE.boolean, [1]]] as const) : []),
    ]),
  });
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
    tensor: (id, dims, strides, type, options) =>
      make(id, dims, strides, type, false, options?.isByValue ?? false),
    virtual: (dims, type = DATA.f32, strides = dense(dims)) =>
      make(fresh++, dims, strides, type, true, false),
    pointwise(mode, x, { b, select, axis, into, compute = DATA.f32, type = DATA.f32 }) {
      const y = into ?? builder.virtual(x.dims, type);
      const description = descriptor(library, DESCRIPTOR.pointwise, [
        [0, TYPE.pointwiseMode, [mode]],
        [1, TYPE.dataType, [compute]],
        ...(axis === undefined ? [] : ([[9, TYPE.int64, [axis]]] as const)),
      ]);
      const operands: (readonly [number, bigint])[] = [
        [750, description],
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
      add(DESCRIPTOR.operationMatmul, [
        [1520, a.handle],
        [1521, b.handle],
        [1522, into.handle],
        [1523, description],
      ]);
      return into;
    },
    reduce(operator, x, into) {
      const description = descriptor(library, DESCRIPTOR.reduction, [
        [1600, TYPE.reductionOperator, [operator]],
        [1601, TYPE.dataType, [DATA.f32]],
      ]);
      add(DESCRIPTOR.operationReduction, [
        [1610, x.handle],
        [1611, into.handle],
        [1612, description],
      ]);
      return into;
    },
    reshape(x, into) {
      add(DESCRIPTOR.operationReshape, [
        [2200, x.handle],
        [2201, into.handle],
      ]);
      return into;
    },
  };
  return builder;
}

/** Tensors of q, k and v as the graphs want them, scaled scores with the causal mask. */
interface Scores {
  readonly q: Tensor;
  /** (B, Hk, D, S). */
  readonly kt: Tensor;
  readonly scale: Tensor;
  readonly row: Dims;
  mask(scores: Tensor): Tensor;
  readonly raw: Tensor;
}

function scoresOf(
  graph: GraphBuilder,
  { B, T, S, H, Hk, D, causal, dtype }: AttentionSpec,
  strides: ForwardStrides,
): Scores {
  const q = graph.tensor(ID.q, [B, H, T, D], [T * strides.q, D, strides.q, 1], DATA[dtype]);
  const kt = graph.tensor(ID.k, [B, Hk, D, S], [S * strides.k, D, 1, strides.k], DATA[dtype]);
  const scale = graph.tensor(ID.scale, [1, 1, 1, 1], [1, 1, 1, 1], DATA.f32, { isByValue: true });
  const product = graph.matmul(q, kt, graph.virtual([B, H, T, S]));
  const raw = graph.pointwise(MODE.mul, product, { b: scale });
  const mask = (scores: Tensor): Tensor => {
    if (!causal) return scores;
    const hidden = graph.tensor(ID.hidden, [1, 1, 1, 1], [1, 1, 1, 1], DATA.f32, {
      isByValue: true,
    });
    const index = (axis: number): Tensor =>
      graph.pointwise(MODE.index, scores, { axis, compute: DATA.i32, type: DATA.i32 });
    const [row, column] = [index(2), index(3)];
    const isSeen = graph.pointwise(MODE.greaterEqual, row, {
      b: column,
      compute: DATA.boolean,
      type: DATA.boolean,
    });
    return graph.pointwise(MODE.select, scores, { b: hidden, select: isSeen });
  };
  return { q, kt, scale, raw, mask, row: [B, H, T, 1] };
}

function forwardPlan(library: Cudnn, spec: AttentionSpec, strides: ForwardStrides): CudnnPlan {
  const { B, T, S, H, Hk, D, dtype } = spec;
  const graph = newGraph(library);
  const scores = scoresOf(graph, spec, strides);
  const masked = scores.mask(scores.raw);
  const { row } = scores;
  const top = graph.reduce(3, masked, graph.virtual(row));
  const weights = graph.pointwise(MODE.exp, graph.pointwise(MODE.sub, masked, { b: top }), {});
  const sum = graph.reduce(0, weights, graph.virtual(row));
  const stats = graph.tensor(ID.stats, row, dense(row), DATA.f32);
  graph.pointwise(MODE.add, top, { b: graph.pointwise(MODE.log, sum, {}), into: stats });
  const p = graph.pointwise(MODE.div, weights, { b: sum, type: DATA[dtype] });
  const v = graph.tensor(ID.v, [B, Hk, S, D], [S * strides.v, D, strides.v, 1], DATA[dtype]);
  graph.matmul(
    p,
    v,
    graph.tensor(ID.o, [B, H, T, D], [T * strides.o, D, strides.o, 1], DATA[dtype]),
  );
  return planOperations(library, graph.operations);
}

function backwardPlan(library: Cudnn, spec: AttentionSpec, strides: BackwardStrides): CudnnPlan {
  const { B, T, S, H, Hk, D, dtype } = spec;
  const type = DATA[dtype];
  const graph = newGraph(library);
  const queries = (id: number, ld: number): Tensor =>
    graph.tensor(id, [B, H, T, D], [T * ld, D, ld, 1], type);
  const keys = (id: number, ld: number): Tensor =>
    graph.tensor(id, [B, Hk, S, D], [S * ld, D, ld, 1], type);
  const one = graph.tensor(ID.one, [1, 1, 1, 1], [1, 1, 1, 1], DATA.f32, { isByValue: true });
  const row: Dims = [B, H, T, 1];
  const [o, dout] = [queries(ID.o, strides.o), queries(ID.dout, strides.dout)];
  const along = graph.reduce(0, graph.pointwise(MODE.mul, dout, { b: o }), graph.virtual(row));
  const sum = graph.pointwise(MODE.mul, along, {
    b: one,
    into: graph.tensor(ID.sum, row, dense(row), DATA.f32),
  });
  const scores = scoresOf(graph, spec, strides);
  const stats = graph.tensor(ID.stats, row, dense(row), DATA.f32);
  const p = graph.pointwise(
    MODE.exp,
    scores.mask(graph.pointwise(MODE.sub, scores.raw, { b: stats })),
    {},
  );
  const flipped: Dims = [B, H, S, T];
  const flip = (x: Tensor): Tensor =>
    graph.reshape(x, graph.virtual(flipped, type, [H * S * T, S * T, 1, S]));
  const toKeys = (weights: Tensor, rows: Tensor, target: Tensor): void => {
    if (H === Hk) graph.matmul(weights, rows, target);
    else graph.reduce(0, graph.matmul(weights, rows, graph.virtual([B, H, S, D], type)), target);
  };
  toKeys(flip(p), dout, keys(ID.dv, strides.dv));
  const vt = graph.tensor(ID.v, [B, Hk, D, S], [S * strides.v, D, 1, strides.v], type);
  const dp = graph.matmul(dout, vt, graph.virtual([B, H, T, S]));
  const centred = graph.pointwise(MODE.mul, graph.pointwise(MODE.sub, dp, { b: sum }), { b: p });
  const ds = graph.pointwise(MODE.mul, centred, { b: scores.scale });
  toKeys(flip(ds), scores.q, keys(ID.dk, strides.dk));
  const k = graph.reshape(
    scores.kt,
    graph.virtual([B, Hk, S, D], type, [S * strides.k, D, strides.k, 1]),
  );
  const accumulator = graph.tensor(ID.accumulator, [B, H, T, D], dense([B, H, T, D]), DATA.f32);
  graph.matmul(ds, k, accumulator);
  graph.pointwise(MODE.identity, accumulator, { into: queries(ID.dq, strides.dq) });
  return planOperations(library, graph.operations);
}

const plans = new Map<string, CudnnPlan>();

function planOnce(key: unknown, make: () => CudnnPlan): CudnnPlan {
  const text = JSON.stringify(key);
  const plan = plans.get(text) ?? make();
  plans.set(text, plan);
  return plan;
}

/** Whether this file's graphs express the mask of `spec`, and cuDNN's kernels take its sizes without known faults. */
export function isCudnnSuited(spec: AttentionSpec, device: Device, version: number): boolean {
  const { T, S, D, causal, window } = spec;
  const largest = device.info.capability[0] === 9 ? 256 : 128;
  const hasMask = window === 0 && (!causal || T === S);
  const isSafe =
    version >= 90200 &&
    (version < 91000 || version >= 91002) &&
    (version >= 91600 || S % 128 === 0);
  return hasMask && isSafe && D % 8 === 0 && D <= largest && T > 1;
}

/**
 * cuDNN's fused attention. Fast; dq is added up in no fixed order, so its last bits differ from run to run.
 * @throws LorikeetError `cuda-attention` when cuDNN has no engine for a graph
 */
export function cudnnAttention(device: Device, spec: AttentionSpec): Attention {
  const library = openCudnn();
  const { B, T, H, D } = spec;
  const scalars = new Map<number, number>([
    [ID.scale, hostFloat(spec.scale)],
    [ID.hidden, hostFloat(-Infinity)],
    [ID.one, hostFloat(1)],
  ]);
  const host = (ids: readonly number[]): [number, number][] =>
    ids.filter((id) => id !== ID.hidden || spec.causal).map((id) => [id, scalars.get(id)!]);
  const round = (bytes: number): number => Math.ceil(bytes / 256) * 256;
  const [accumulatorBytes, sumBytes] = [round(B * H * T * D * 4), round(B * H * T * 4)];
  return {
    name: "cudnn",
    forward(strides) {
      const plan = planOnce(["forward", spec, strides], () => forwardPlan(library, spec, strides));
      return {
        scratchBytes: plan.workspaceBytes,
        enqueue({ q, k, v, o, lse, scratch }) {
          const pointers = new Map([
            [ID.q, q],
            [ID.k, k],
            [ID.v, v],
            [ID.o, o],
            [ID.stats, lse],
            ...host([ID.scale, ID.hidden]),
          ] as [number, number][]);
          plan.execute(pointers, scratch, device.stream);
        },
      };
    },
    backward(strides) {
      const plan = planOnce(["backward", spec, strides], () =>
        backwardPlan(library, spec, strides),
      );
      return {
        scratchBytes: accumulatorBytes + sumBytes + plan.workspaceBytes,
        enqueue({ q, k, v, o, lse, dout, dq, dk, dv, scratch }) {
          if (library.version < 90600)
            device.driver.call.cuMemsetD8Async(scratch, 0, accumulatorBytes, device.stream);
          const pointers = new Map([
            ...([
              [ID.q, q],
              [ID.k, k],
              [ID.v, v],
              [ID.o, o],
              [ID.stats, lse],
              [ID.dout, dout],
              [ID.dq, dq],
              [ID.dk, dk],
              [ID.dv, dv],
            ] as [number, number][]),
            ...([
              [ID.accumulator, scratch],
              [ID.sum, scratch + accumulatorBytes],
            ] as [number, number][]),
            ...host([ID.scale, ID.hidden, ID.one]),
          ]);
          plan.execute(pointers, scratch + accumulatorBytes + sumBytes, device.stream);
        },
      };
    },
  };
}
