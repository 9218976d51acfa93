/** @file What an attention implementation does, and the one of our own kernels. */
import { type Graph, rootsOf, topological } from "../../ir/graph.ts";
import type { Device } from "./device.ts";
import { expectModule, type Kernel, loadModule } from "./kernels.ts";

/** Sizes and mask of one attention; see the op `attention` for their meaning. */
export interface AttentionSpec {
  readonly B: number;
  readonly T: number;
  readonly S: number;
  readonly H: number;
  readonly Hk: number;
  readonly D: number;
  readonly causal: boolean;
  /** Newest keys that a query sees; 0: all. */
  readonly window: number;
  readonly scale: number;
  readonly dtype: "bf16" | "f16";
}

/** Addresses of int32 segment ids of queries (B, T) and keys (B, S); 0 where there are none. */
export interface Segments {
  readonly queries: number;
  readonly keys: number;
}

/** Token strides of the operands, in elements. */
export interface ForwardStrides {
  readonly q: number;
  readonly k: number;
  readonly v: number;
  readonly o: number;
}

export interface BackwardStrides extends ForwardStrides {
  readonly dout: number;
  readonly dq: number;
  readonly dk: number;
  readonly dv: number;
}

/** Addresses of the operands of a forward pass. */
export interface ForwardBuffers {
  readonly q: number;
  readonly k: number;
  readonly v: number;
  readonly o: number;
  /** f32 (B, H, T): what the backward pass of the same implementation needs of the softmax. */
  readonly lse: number;
  readonly segments: Segments;
  readonly scratch: number;
}

export interface BackwardBuffers extends ForwardBuffers {
  readonly dout: number;
  readonly dq: number;
  readonly dk: number;
  readonly dv: number;
}

/** Launches that need `scratchBytes` of memory. */
export interface Launch<Buffers> {
  readonly scratchBytes: number;
  enqueue(buffers: Buffers): void;
}

/** Forward and backward kernels for one spec. */
export interface Attention {
  readonly name: string;
  forward(strides: ForwardStrides): Launch<ForwardBuffers>;
  backward(strides: BackwardStrides): Launch<BackwardBuffers>;
}

interface Kernels {
  readonly forward: Kernel;
  readonly delta: Kernel;
  readonly keys: Kernel;
  readonly queries: Kernel;
}

/** Rows of a tile, elements behind each of its rows, and bytes of numbers for each row of a backward pass. */
const [TILE, PADDING, ROW_SUMS] = [64, 8, 3 * 256];
const modules = new WeakMap<Device, Map<string, Kernels>>();
const SHAPE = "iiiiiiiiiiif";
const POINTERS = "pppppppp";
const FILES = ["attention", "attention-backward"];

/** Head sizes that the own kernels take are multiples of this. */
export const HEAD_UNIT = 16;

/** The largest head that the own kernels take where a block has `sharedBytes` of shared memory. */
export function largestHead(sharedBytes: number): number {
  const fitting = (sharedBytes - ROW_SUMS) / (4 * TILE * 2) - PADDING;
  return Math.min(256, Math.floor(fitting / HEAD_UNIT) * HEAD_UNIT);
}

/** Own tensor-core kernels: any mask, packed segments, bit-for-bit deterministic. */
export function flashAttention(device: Device, spec: AttentionSpec): Attention {
  const { B, T, S, H, Hk, D } = spec;
  const tiles = tilesOf(D);
  const { forward, delta, keys, queries } = kernelsOf(device, D, spec.dtype);
  const row = (D + PADDING) * 2;
  const shapeOf = ({ q, k, v, o }: ForwardStrides): number[] => [
    ...[B, T, S, H, Hk, Number(spec.causal), spec.window],
    ...[q, k, v, o, spec.scale * Math.LOG2E],
  ];
  return {
    name: "flash",
    forward: (strides) => ({
      scratchBytes: 0,
      enqueue({ q, k, v, o, lse, segments }) {
        const values = [q, k, v, segments.queries, segments.keys, o, lse, ...shapeOf(strides)];
        forward.launch(
          [Math.ceil(T / (64 * tiles)), H, B],
          128,
          values,
          (64 * tiles + 128) * row + 256,
        );
      },
    }),
    backward: (strides) => ({
      scratchBytes: B * H * T * 4,
      enqueue({ q, k, v, o, dout, dq, dk, dv, lse, scratch, segments }) {
        const sizes = [
          ...shapeOf(strides),
          strides.dout,
          strides.dq,
          strides.dk,
          strides.dv,
          spec.scale,
        ];
        delta.launch([Math.ceil((B * T * H) / 4)], 128, [o, dout, scratch, ...sizes]);
        const inputs = [q, k, v, segments.queries, segments.keys, lse, scratch, dout];
        const shared = 4 * TILE * row + ROW_SUMS;
        keys.launch([Math.ceil(S / 64), Hk, B], 128, [...inputs, dk, dv, ...sizes], shared);
        queries.launch([Math.ceil(T / 64), H, B], 128, [...inputs, dq, ...sizes], shared);
      },
    }),
  };
}

/** Expects the modules of every attention in `graph` whose head size the kernels take. */
export function expectAttention(device: Device, graph: Graph, dtype: "bf16" | "f16" | "f32"): void {
  if (dtype === "f32") return;
  const largest = largestHead(device.info.sharedBytes);
  for (const { op, inputs } of topological(rootsOf(graph))) {
    if (op.name !== "attention") continue;
    const D = Math.ceil(inputs[0]!.shape[3]! / HEAD_UNIT) * HEAD_UNIT;
    if (D <= largest) expectModule(device, FILES, definesOf(D, dtype));
  }
}

function tilesOf(D: number): number {
  return D <= 128 ? 2 : 1;
}

function definesOf(D: number, dtype: "bf16" | "f16"): Record<string, number> {
  return { D, MT: tilesOf(D), USE_F16: dtype === "f16" ? 1 : 0 };
}

function kernelsOf(device: Device, D: number, dtype: "bf16" | "f16"): Kernels {
  const known = modules.get(device) ?? new Map<string, Kernels>();
  modules.set(device, known);
  const key = `${dtype} ${D}`;
  const found = known.get(key);
  if (found) return found;
  const module = loadModule(device, FILES, definesOf(D, dtype));
  const kernels: Kernels = {
    forward: module.kernel("attention_forward", `${POINTERS.slice(1)}${SHAPE}`),
    delta: module.kernel("attention_delta", `ppp${SHAPE}iiiif`),
    keys: module.kernel("attention_keys_backward", `${POINTERS}pp${SHAPE}iiiif`),
    queries: module.kernel("attention_queries_backward", `${POINTERS}p${SHAPE}iiiif`),
  };
  known.set(key, kernels);
  return kernels;
}
