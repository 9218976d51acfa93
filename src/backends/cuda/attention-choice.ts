/** @file Which attention kernels a spec gets: cuDNN's where they pass a small numerical test, else our own. */
import { Random } from "../../tensor/random.ts";
import { convert, toFloat32 } from "../../tensor/convert.ts";
import { type Attention, type AttentionSpec, flashAttention } from "./attention.ts";
import { cudnnAttention, isCudnnSuited } from "./attention-cudnn.ts";
import { allocateDevice, type Device, freeDevice } from "./device.ts";
import { openCudnn } from "./ffi/cudnn.ts";
import { readDevice, writeDevice } from "./memory.ts";

/** What a test of cuDNN's attention found. */
export interface AttentionTest {
  readonly passed: boolean;
  /** Why it is not used, or the largest relative difference to our own kernels. */
  readonly detail: string;
}

const tests = new Map<string, AttentionTest>();
/** Two bf16 implementations that round at different places. */
const LIMIT = 2e-2;

/**
 * @param isDeterministic only kernels that give the same bits at every run
 * @param isSegmented the mask depends on segment ids
 */
export function chooseAttention(
  device: Device,
  spec: AttentionSpec,
  isSegmented: boolean,
  isDeterministic: boolean,
): Attention {
  const own = flashAttention(device, spec);
  if (isSegmented || isDeterministic) return own;
  try {
    if (!isCudnnSuited(spec, device, openCudnn().version) || !testCudnn(device, spec).passed)
      return own;
    return cudnnAttention(device, spec);
  } catch {
    return own; // no cuDNN here: our own kernels do everything
  }
}

/** Runs a small problem of the kind of `spec` through cuDNN and our own kernels; once a kind. */
export function testCudnn(
  device: Device,
  { H, Hk, D, causal, dtype }: AttentionSpec,
): AttentionTest {
  const key = [device.info.index, H / Hk, D, causal, dtype].join();
  const known = tests.get(key);
  if (known) return known;
  const heads = Math.max(1, H / Hk);
  const spec: AttentionSpec = {
    B: 1,
    T: 128,
    S: 128,
    H: heads,
    Hk: 1,
    D,
    causal,
    window: 0,
    scale: 1 / Math.sqrt(D),
    dtype,
  };
  let test: AttentionTest;
  try {
    const difference = compare(device, spec);
    test = {
      passed: difference <= LIMIT,
      detail: `relative difference ${difference.toExponential(1)}`,
    };
  } catch (error) {
    test = { passed: false, detail: error instanceof Error ? error.message : String(error) };
  }
  tests.set(key, test);
  return test;
}

/** Largest relative difference of o, dq, dk and dv between cuDNN and our own kernels. */
function compare(device: Device, spec: AttentionSpec): number {
  const [first, second] = [cudnnAttention(device, spec), flashAttention(device, spec)].map(
    (attention) => run(device, spec, attention),
  );
  return Math.max(...first!.map((values, i) => relative(values, second![i]!)));
}

function run(
  device: Device,
  { T, H, D, dtype }: AttentionSpec,
  attention: Attention,
): Float32Array[] {
  const random = new Random(5);
  const [wide, narrow] = [T * H * D, T * D];
  const addresses: number[] = [];
  const allocate = (bytes: number): number => {
    addresses.push(allocateDevice(device, bytes, "a test of attention"));
    return addresses.at(-1)!;
  };
  const fed = (size: number): number => {
    const data = Float32Array.from({ length: size }, () => random.normal());
    const at = allocate(size * 2);
    writeDevice(device, at, convert({ dtype: "f32", shape: [size], data }, dtype).data);
    return at;
  };
  const strides = { q: H * D, k: D, v: D, o: H * D };
  const forward = attention.forward(strides);
  const backward = attention.backward({ ...strides, dout: H * D, dq: H * D, dk: D, dv: D });
  const [q, k, v, dout] = [fed(wide), fed(narrow), fed(narrow), fed(wide)] as const;
  const [o, dq, dk, dv] = [
    allocate(wide * 2),
    allocate(wide * 2),
    allocate(narrow * 2),
    allocate(narrow * 2),
  ] as const;
  const scratch = allocate(Math.max(forward.scratchBytes, backward.scratchBytes));
  const buffers = {
    q,
    k,
    v,
    o,
    lse: allocate(H * T * 4),
    segments: { queries: 0, keys: 0 },
    scratch,
  };
  forward.enqueue(buffers);
  backward.enqueue({ ...buffers, dout, dq, dk, dv });
  const results = [o, dq, dk, dv].map((at, i) => {
    const data = new Uint16Array(i < 2 ? wide : narrow);
    readDevice(device, at, data);
    return toFloat32({ dtype, shape: [data.length], data });
  });
  for (const at of addresses) freeDevice(device, at);
  return results;
}

/** ‖a − b‖ / ‖b‖; infinite when a value is no number. */
function relative(a: Float32Array, b: Float32Array): number {
  let [difference, norm] = [0, 0];
  a.forEach((value, i) => {
    difference += (value - b[i]!) ** 2;
    norm += b[i]! ** 2;
  });
  const result = Math.sqrt(difference / norm);
  return Number.isNaN(result) ? Infinity : result;
}
