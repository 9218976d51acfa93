/** @file What an attention implementation does, and the one of our own kernels. */
import type { Device } from "./device.ts";
import { type Kernel, loadModule } from "./kernels.ts";

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

/** A token-strided matrix on the device: address, and elements from one token to the next. */
export interface Strided {
  readonly at: number;
  readonly ld: number;
}

/** Addresses of int32 segment ids of queries (B, T) and keys (B, S); 0 where there are none. */
export interface Segments {
  readonly queries: number;
  readonly keys: number;
}

export interface ForwardBuffers {
  readonly q: Strided;
  readonly k: Strided;
  readonly v: Strided;
  readonly o: Strided;
  /** f32 (B, H, T): what the backward pass of the same implementation needs of the softmax. */
  readonly lse: number;
  readonly segments: Segments;
}

export interface BackwardBuffers extends ForwardBuffers {
  readonly dout: Strided;
  readonly dq: Strided;
  readonly dk: Strided;
  readonly dv: Strided;
  /** `scratchBytes` of memory. */
  readonly scratch: number;
}

/** Forward and backward kernels for one spec. */
export interface Attention {
  readonly name: string;
  readonly scratchBytes: number;
  forward(buffers: ForwardBuffers): void;
  backward(buffers: BackwardBuffers): void;
}

const modules = new Map<string, { forward: Kernel; delta: Kernel; keys: Kernel; queries: Kernel }>();
const SHAPE = "iiiiiiiiiiif";
const POINTERS = "pppppppp";

/** Head sizes that the own kernels take. */
export function isFlashSupported(D: number): boolean {
  return D % 16 === 0 && D >= 16 && D <= 256;
}

/** Own tensor-core kernels: any mask, packed segments, bit-for-bit deterministic. */
export function flashAttention(device: Device, spec: AttentionSpec): Attention {
  const { B, T, S, H, Hk, D } = spec;
  const tiles = D <= 128 ? 2 : 1;
  const { forward, delta, keys, queries } = kernelsOf(device, D, spec.dtype, tiles);
  const row = (D + 8) * 2;
  const shape = ({ q, k, v, o }: ForwardBuffers): number[] => [
    ...[B, T, S, H, Hk, Number(spec.causal), spec.window],
    ...[q.ld, k.ld, v.ld, o.ld, spec.scale * Math.LOG2E],
  ];
  return {
    name: "flash",
    scratchBytes: B * H * T * 4,
    forward(buffers) {
      const { q, k, v, o, lse, segments } = buffers;
      const values = [q.at, k.at, v.at, segments.queries, segments.keys, o.at, lse, ...shape(buffers)];
      forward.launch([Math.ceil(T / (64 * tiles)), H, B], 128, values, (64 * tiles + 128) * row + 256);
    },
    backward(buffers) {
      const { q, k, v, o, dout, dq, dk, dv, lse, scratch, segments } = buffers;
      const strides = [dout.ld, dq.ld, dk.ld, dv.ld, spec.scale];
      delta.launch([Math.ceil((B * T * H) / 4)], 128, [o.at, dout.at, scratch, ...shape(buffers), ...strides]);
      const inputs = [q.at, k.at, v.at, segments.queries, segments.keys, lse, scratch, dout.at];
      const shared = 4 * 64 * row + 3 * 256;
      keys.launch([Math.ceil(S / 64), Hk, B], 128, [...inputs, dk.at, dv.at, ...shape(buffers), ...strides], shared);
      queries.launch([Math.ceil(T / 64), H, B], 128, [...inputs, dq.at, ...shape(buffers), ...strides], shared);
    },
  };
}

function kernelsOf(
  device: Device,
  D: number,
  dtype: "bf16" | "f16",
  tiles: number,
): { forward: Kernel; delta: Kernel; keys: Kernel; queries: Kernel } {
  const key = `${device.info.index} ${dtype} ${D}`;
  const known = modules.get(key);
  if (known) return known;
  const defines = { D, MT: tiles, USE_F16: dtype === "f16" ? 1 : 0 };
  const module = loadModule(device, ["attention", "attention-backward"], defines);
  const kernels = {
    forward: module.kernel("attention_forward", `${POINTERS.slice(1)}${SHAPE}`),
    delta: module.kernel("attention_delta", `ppp${SHAPE}iiiif`),
    keys: module.kernel("attention_keys_backward", `${POINTERS}pp${SHAPE}iiiif`),
    queries: module.kernel("attention_queries_backward", `${POINTERS}p${SHAPE}iiiif`),
  };
  modules.set(key, kernels);
  return kernels;
}
