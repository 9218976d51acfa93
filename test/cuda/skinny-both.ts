/** @file Both adapter products of a gradient that is read once, against float64 loops: several parts, odd sizes, adding up. */
import { allocateDevice, type Device, freeDevice } from "../../src/backends/cuda/device.ts";
import { fillZero } from "../../src/backends/cuda/memory.ts";
import type { Matrix } from "../../src/backends/cuda/plan/products.ts";
import { SKINNY } from "../../src/backends/cuda/plan/skinny.ts";
import { bothCalls, type BothContext } from "../../src/backends/cuda/plan/skinny-both.ts";
import { newValue, type Value } from "../../src/backends/cuda/plan/value.ts";
import { toFloat64 } from "../../src/tensor/convert.ts";
import { Random } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { type Check, download, expectClose, poisoned, randomTensor, upload } from "./check.ts";

const FACTOR = 0.5;

function placed(address: number, shape: readonly number[], storage: "bf16" | "f32"): Value {
  const value = newValue(shape, storage);
  return { ...value, region: { ...value.region, address, isPlanned: false } };
}

function columns(value: Value, first: number): Matrix {
  return { value, offset: first, ld: value.shape[1]! };
}

/** x of all parts side by side, and behind them where the first products go; u side by side. */
function checkBoth(device: Device, T: number, N: number, Fs: readonly number[]): string {
  const random = new Random(T + N);
  const F = Fs.reduce((sum, each) => sum + each, 0);
  const starts = Fs.map((_, i) => Fs.slice(0, i).reduce((sum, each) => sum + each, 0));
  const ld = F + Fs.length * N;
  const x = randomTensor(random, [T, ld], "bf16");
  const u = randomTensor(random, [T, Fs.length * N], "bf16");
  const ws = Fs.map((each) => randomTensor(random, [N, each], "bf16"));
  const before = Fs.map((each) => randomTensor(random, [each, N]));
  const highs = before.map((each) => upload(device, each));
  const [wide, us] = [
    placed(upload(device, x), [T, ld], "bf16"),
    placed(upload(device, u), [T, Fs.length * N], "bf16"),
  ];
  const lows = placed(poisoned(device, "bf16", [T, Fs.length * N]), [T, Fs.length * N], "bf16");
  const skinny = allocateDevice(device, SKINNY.bytes, "a check");
  fillZero(device, skinny, SKINNY.bytes);
  const context: BothContext = {
    ...{ device, skinny, plan: { precision: "bf16" } },
    scratch: { address: allocateDevice(device, F * N * 4, "a check"), bytes: 0 },
  };
  const parts = Fs.map((each, i) => ({
    F: each,
    x: columns(wide, starts[i]!),
    w: columns(placed(upload(device, ws[i]!), [N, each], "bf16"), 0),
    u: columns(us, i * N),
    low: columns(lows, i * N),
    high: placed(highs[i]!, [each, N], "f32"),
  }));
  const calls = bothCalls(context, { T, N, factor: FACTOR, parts });
  if (calls.length === 0) throw new Error("expected the kernels to take these sizes");
  const [xs, uNumbers] = [toFloat64(x), toFloat64(u)];
  const expectedLow = lowsOf({ T, N, Fs, starts, ld }, xs, ws);
  const reports = calls.map((call) => {
    call.prepare();
    call.enqueue();
    const low = download(device, lows.region.address, "bf16", [T, Fs.length * N]);
    return expectClose("low", low, expectedLow, 4e-3);
  });
  Fs.forEach((each, part) => {
    const got = download(device, highs[part]!, "f32", [each * N]);
    const start = toFloat64(before[part]!);
    const expected = Float64Array.from({ length: each * N }, (_, i) => {
      const [f, n] = [Math.floor(i / N), i % N];
      let sum = 0;
      for (let t = 0; t < T; t++)
        sum += xs[t * ld + starts[part]! + f]! * uNumbers[t * Fs.length * N + part * N + n]!;
      return start[i]! + calls.length * FACTOR * sum;
    });
    reports.push(expectClose(`high ${part}`, got, expected, 1e-5));
  });
  freeDevice(device, skinny);
  return reports.join(", ");
}

interface Sizes {
  readonly T: number;
  readonly N: number;
  readonly Fs: readonly number[];
  readonly starts: readonly number[];
  readonly ld: number;
}

function lowsOf(
  { T, N, Fs, starts, ld }: Sizes,
  xs: Float64Array,
  ws: readonly Tensor[],
): Float64Array {
  const numbers = ws.map((w) => toFloat64(w));
  return Float64Array.from({ length: T * Fs.length * N }, (_, i) => {
    const [t, part, n] = [Math.floor(i / (Fs.length * N)), Math.floor((i / N) % Fs.length), i % N];
    const F = Fs[part]!;
    let sum = 0;
    for (let f = 0; f < F; f++) sum += xs[t * ld + starts[part]! + f]! * numbers[part]![n * F + f]!;
    return sum;
  });
}

export const checks: readonly Check[] = (
  [
    [100, 16, [520, 72]],
    [333, 16, [72]],
    [45, 8, [64, 1032, 8]],
    [70, 24, [512]],
    [64, 32, [40, 40, 40, 520]],
  ] as const
).map(([T, N, Fs]) => ({
  name: `skinny both T ${T} N ${N} F ${Fs.join(" ")}`,
  run: (device: Device) => checkBoth(device, T, N, Fs),
}));
