/** @file Attention as cuDNN operation graphs of matrix products, pointwise ops and reductions, which cuDNN fuses. */
import type { Attention, AttentionSpec, BackwardStrides, ForwardStrides } from "./attention.ts";
import { dense, type Dims, type GraphBuilder, newGraph, type Tensor } from "./cudnn-graph.ts";
import type { Device } from "./device.ts";
import {
  type Cudnn,
  type CudnnPlan,
  DATA,
  hostFloat,
  MODE,
  openCudnn,
  planOperations,
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

type TensorSpec = Parameters<GraphBuilder["tensor"]>[0];

/** A float32 number in host memory. */
function hostNumber(id: number): TensorSpec {
  const ones = [1, 1, 1, 1] as const;
  return { id, dims: ones, strides: ones, type: DATA.f32, isByValue: true };
}

/** Float32 values without gaps. */
function floats(id: number, dims: Dims): TensorSpec {
  return { id, dims, strides: dense(dims), type: DATA.f32 };
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
  const type = DATA[dtype];
  const q = graph.tensor({
    ...{ id: ID.q, dims: [B, H, T, D], strides: [T * strides.q, D, strides.q, 1], type },
  });
  const kt = graph.tensor({
    ...{ id: ID.k, dims: [B, Hk, D, S], strides: [S * strides.k, D, 1, strides.k], type },
  });
  const scale = graph.tensor(hostNumber(ID.scale));
  const product = graph.matmul(q, kt, graph.virtual([B, H, T, S]));
  const raw = graph.pointwise(MODE.mul, product, { b: scale });
  const mask = (scores: Tensor): Tensor => {
    if (!causal) return scores;
    const hidden = graph.tensor(hostNumber(ID.hidden));
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
  const stats = graph.tensor(floats(ID.stats, row));
  graph.pointwise(MODE.add, top, { b: graph.pointwise(MODE.log, sum, {}), into: stats });
  const p = graph.pointwise(MODE.div, weights, { b: sum, type: DATA[dtype] });
  const type = DATA[dtype];
  const v = graph.tensor({
    ...{ id: ID.v, dims: [B, Hk, S, D], strides: [S * strides.v, D, strides.v, 1], type },
  });
  const o = graph.tensor({
    ...{ id: ID.o, dims: [B, H, T, D], strides: [T * strides.o, D, strides.o, 1], type },
  });
  graph.matmul(p, v, o);
  return planOperations(library, graph.operations);
}

function backwardPlan(library: Cudnn, spec: AttentionSpec, strides: BackwardStrides): CudnnPlan {
  const { B, T, S, H, Hk, D, dtype } = spec;
  const type = DATA[dtype];
  const graph = newGraph(library);
  const queries = (id: number, ld: number): Tensor =>
    graph.tensor({ id, dims: [B, H, T, D], strides: [T * ld, D, ld, 1], type });
  const keys = (id: number, ld: number): Tensor =>
    graph.tensor({ id, dims: [B, Hk, S, D], strides: [S * ld, D, ld, 1], type });
  const one = graph.tensor(hostNumber(ID.one));
  const row: Dims = [B, H, T, 1];
  const [o, dout] = [queries(ID.o, strides.o), queries(ID.dout, strides.dout)];
  const along = graph.reduce(0, graph.pointwise(MODE.mul, dout, { b: o }), graph.virtual(row));
  const sum = graph.pointwise(MODE.mul, along, {
    b: one,
    into: graph.tensor(floats(ID.sum, row)),
  });
  const scores = scoresOf(graph, spec, strides);
  const stats = graph.tensor(floats(ID.stats, row));
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
  const vt = graph.tensor({
    ...{ id: ID.v, dims: [B, Hk, D, S], strides: [S * strides.v, D, 1, strides.v], type },
  });
  const dp = graph.matmul(dout, vt, graph.virtual([B, H, T, S]));
  const centred = graph.pointwise(MODE.mul, graph.pointwise(MODE.sub, dp, { b: sum }), { b: p });
  const ds = graph.pointwise(MODE.mul, centred, { b: scores.scale });
  toKeys(flip(ds), scores.q, keys(ID.dk, strides.dk));
  const k = graph.reshape(
    scores.kt,
    graph.virtual([B, Hk, S, D], type, [S * strides.k, D, strides.k, 1]),
  );
  const accumulator = graph.tensor(floats(ID.accumulator, [B, H, T, D]));
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
  const scalars = [
    [ID.scale, hostFloat(spec.scale)],
    [ID.hidden, hostFloat(-Infinity)],
    [ID.one, hostFloat(1)],
  ] as const;
  const host = scalars.filter(([id]) => id !== ID.hidden || spec.causal);
  const use: Use = { device, library, spec, host };
  return {
    name: "cudnn",
    forward: (strides) => forwardLaunch(use, strides),
    backward: (strides) => backwardLaunch(use, strides),
  };
}

/** What both directions share: `host` has the numbers that graphs read, by id. */
interface Use {
  readonly device: Device;
  readonly library: Cudnn;
  readonly spec: AttentionSpec;
  readonly host: readonly (readonly [number, number])[];
}

function forwardLaunch(
  { device, library, spec, host }: Use,
  strides: ForwardStrides,
): ReturnType<Attention["forward"]> {
  const plan = planOnce(["forward", spec, strides], () => forwardPlan(library, spec, strides));
  const numbers = host.filter(([id]) => id !== ID.one);
  return {
    scratchBytes: plan.workspaceBytes,
    enqueue({ q, k, v, o, lse, scratch }) {
      const pointers = new Map([...pointersOf({ q, k, v, o, stats: lse }), ...numbers]);
      plan.execute(pointers, scratch, device.stream);
    },
  };
}

function backwardLaunch(
  { device, library, spec, host }: Use,
  strides: BackwardStrides,
): ReturnType<Attention["backward"]> {
  const { B, T, H, D } = spec;
  const round = (bytes: number): number => Math.ceil(bytes / 256) * 256;
  const [accumulatorBytes, sumBytes] = [round(B * H * T * D * 4), round(B * H * T * 4)];
  const plan = planOnce(["backward", spec, strides], () => backwardPlan(library, spec, strides));
  return {
    scratchBytes: accumulatorBytes + sumBytes + plan.workspaceBytes,
    enqueue({ q, k, v, o, lse, dout, dq, dk, dv, scratch }) {
      if (library.version < 90600)
        device.driver.call.cuMemsetD8Async(scratch, 0, accumulatorBytes, device.stream);
      const own = { accumulator: scratch, sum: scratch + accumulatorBytes };
      const pointers = new Map([
        ...pointersOf({ q, k, v, o, stats: lse, dout, dq, dk, dv, ...own }),
        ...host,
      ]);
      plan.execute(pointers, scratch + accumulatorBytes + sumBytes, device.stream);
    },
  };
}

function pointersOf(addresses: Partial<Record<keyof typeof ID, number>>): [number, number][] {
  return Object.entries(addresses).map(([name, at]) => [ID[name as keyof typeof ID], at]);
}
