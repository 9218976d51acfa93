/** @file Checks of attention against float64 loops: head sizes, grouped heads, masks, packed segments, strided rows. */
import {
  type Attention,
  type AttentionSpec,
  flashAttention,
} from "../../src/backends/cuda/attention.ts";
import { cudnnAttention, isCudnnSuited } from "../../src/backends/cuda/attention-cudnn.ts";
import type { Device } from "../../src/backends/cuda/device.ts";
import { openCudnn } from "../../src/backends/cuda/ffi/cudnn.ts";
import { toFloat64 } from "../../src/tensor/convert.ts";
import { Random } from "../../src/tensor/random.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { referenceAttention } from "./attention-reference.ts";
import {
  type Check,
  download,
  expectClose,
  poisoned,
  randomTensor,
  release,
  Skipped,
  upload,
} from "./check.ts";

/** bf16 operands and probabilities: 2^-9 each. */
const LIMIT = { bf16: 1.2e-2, f16: 2e-3 } as const;

type Options = Partial<AttentionSpec> & { readonly packed?: boolean; readonly seed?: number };

function spec({
  B = 2,
  T = 70,
  S = T,
  H = 4,
  Hk = 2,
  D = 64,
  dtype = "bf16",
  causal = true,
  window = 0,
}: Options): AttentionSpec {
  return { B, T, S, H, Hk, D, dtype, causal, window, scale: 1 / Math.sqrt(D) };
}

/** Sorted segment ids: three documents and a tail of padding whose segment no key has. */
function segmentIds(B: number, length: number, total: number): Int32Array {
  return Int32Array.from({ length: B * length }, (_, i) => {
    const position = (i % length) + total - length;
    return Math.floor((position * 3) / total) + (i >= length ? 1 : 0);
  });
}

/** Random operands: keys and values lie interleaved by token in `kv`. */
interface Operands {
  readonly q: Tensor;
  readonly kv: Tensor;
  readonly dout: Tensor;
  readonly segments: readonly [Int32Array, Int32Array] | undefined;
}

function operandsOf(options: Options): Operands {
  const { B, T, S, H, Hk, D, dtype } = spec(options);
  const random = new Random(options.seed ?? 1);
  return {
    q: randomTensor(random, [B, T, H * D], dtype),
    kv: randomTensor(random, [B, S, 2 * Hk * D], dtype),
    dout: randomTensor(random, [B, T, H * D], dtype),
    segments: options.packed ? [segmentIds(B, T, S), segmentIds(B, S, S)] : undefined,
  };
}

/** Keys (0) or values (1) of interleaved ones, `width` elements a token. */
function partOf(kv: Float64Array, which: 0 | 1, width: number): Float64Array {
  return Float64Array.from(
    { length: kv.length / 2 },
    (_, i) => kv[(2 * Math.floor(i / width) + which) * width + (i % width)]!,
  );
}

/** Runs `attention` on random data and compares everything with the float64 reference. */
export function checkAttention(device: Device, attention: Attention, options: Options): string {
  const { Hk, D, dtype } = spec(options);
  const operands = operandsOf(options);
  const { q, kv, dout, segments } = operands;
  const halves = ([0, 1] as const).map((which) => partOf(toFloat64(kv), which, Hk * D));
  const expected = referenceAttention(
    spec(options),
    [toFloat64(q), halves[0]!, halves[1]!, toFloat64(dout)],
    segments,
  );
  const { o, dq, dkv } = runAttention(device, attention, options, operands);
  const limit = LIMIT[dtype];
  const [dk, dv] = ([0, 1] as const).map((which) => partOf(toFloat64(dkv), which, Hk * D));
  const flat = (data: Float64Array): Tensor => tensor("f64", [data.length], data);
  return [
    expectClose("o", o, expected.o, limit),
    expectClose("dq", dq, expected.dq, limit),
    expectClose("dk", flat(dk!), expected.dk, limit),
    expectClose("dv", flat(dv!), expected.dv, limit),
  ].join(", ");
}

/** Forward and backward on the GPU, on poisoned memory. */
function runAttention(
  device: Device,
  attention: Attention,
  options: Options,
  { q, kv, dout, segments }: Operands,
): { o: Tensor; dq: Tensor; dkv: Tensor } {
  const { B, T, S, H, Hk, D, dtype } = spec(options);
  const strides = { q: H * D, k: 2 * Hk * D, v: 2 * Hk * D, o: H * D };
  const forward = attention.forward(strides);
  const more = { dout: H * D, dq: H * D, dk: 2 * Hk * D, dv: 2 * Hk * D };
  const backward = attention.backward({ ...strides, ...more });
  const at = {
    q: upload(device, q),
    kv: upload(device, kv),
    dout: upload(device, dout),
    o: poisoned(device, dtype, q.shape),
    lse: poisoned(device, "f32", [B, H, T]),
    dq: poisoned(device, dtype, q.shape),
    dkv: poisoned(device, dtype, kv.shape),
    scratch: poisoned(device, "u8", [Math.max(forward.scratchBytes, backward.scratchBytes)]),
    queries: segments ? upload(device, tensor("i32", [B, T], segments[0])) : 0,
    keys: segments ? upload(device, tensor("i32", [B, S], segments[1])) : 0,
  };
  const half = Hk * D * 2;
  const buffers = {
    ...{ q: at.q, k: at.kv, v: at.kv + half, o: at.o, lse: at.lse, scratch: at.scratch },
    segments: { queries: at.queries, keys: at.keys },
  };
  forward.enqueue(buffers);
  backward.enqueue({ ...buffers, dout: at.dout, dq: at.dq, dk: at.dkv, dv: at.dkv + half });
  const results = {
    o: download(device, at.o, dtype, q.shape),
    dq: download(device, at.dq, dtype, q.shape),
    dkv: download(device, at.dkv, dtype, kv.shape),
  };
  release(
    device,
    Object.values(at).filter((address) => address !== 0),
  );
  return results;
}

const CASES: readonly Options[] = [
  { D: 32 },
  { D: 64, T: 130, seed: 2 },
  { D: 96, B: 1 },
  { D: 128, T: 129, H: 2, Hk: 1, B: 1 },
  { D: 256, H: 2, Hk: 1, B: 1 },
  { D: 64, causal: false, T: 65, S: 131 },
  { D: 64, T: 17, S: 100 },
  { D: 32, T: 200, window: 37, B: 1 },
  { D: 64, T: 150, packed: true },
  { D: 64, T: 40, S: 150, packed: true, causal: false },
  { D: 64, dtype: "f16", H: 3, Hk: 3 },
  { D: 64, T: 1, S: 1, B: 3 },
];

const CUDNN_CASES: readonly Options[] = [
  { D: 64, T: 128 },
  { D: 64, T: 256, H: 3, Hk: 1, seed: 3 },
  { D: 128, T: 128, H: 2, Hk: 2, B: 1 },
  { D: 128, T: 200, H: 4, Hk: 2, B: 1 },
  { D: 64, T: 128, causal: false },
  { D: 32, T: 128 },
  { D: 256, T: 128, H: 2, Hk: 1, B: 1 },
  { D: 64, T: 128, dtype: "f16" },
];

function checkCudnn(device: Device, options: Options): string {
  let version: number;
  try {
    ({ version } = openCudnn());
  } catch (error) {
    throw new Skipped(error instanceof Error ? error.message : String(error));
  }
  if (!isCudnnSuited(spec(options), device, version))
    throw new Skipped(`not with cuDNN ${version} on this GPU`);
  return checkAttention(device, cudnnAttention(device, spec(options)), options);
}

/** Checks of the own kernels and of cuDNN's. */
export const checks: readonly Check[] = [
  ...CASES.map((options) => ({
    name: `flash attention ${JSON.stringify(options)}`,
    run: (device: Device) => checkAttention(device, flashAttention(device, spec(options)), options),
  })),
  ...CUDNN_CASES.map((options) => ({
    name: `cudnn attention ${JSON.stringify(options)}`,
    run: (device: Device) => checkCudnn(device, options),
  })),
];
