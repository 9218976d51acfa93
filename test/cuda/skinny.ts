/** @file Products with a short side against float64 loops: odd sizes, several parts, strided rows, accumulation. */
import type { Device } from "../../src/backends/cuda/device.ts";
import { loadModule } from "../../src/backends/cuda/kernels.ts";
import { fillZero } from "../../src/backends/cuda/memory.ts";
import { allocateDevice } from "../../src/backends/cuda/device.ts";
import { toFloat64 } from "../../src/tensor/convert.ts";
import { Random } from "../../src/tensor/random.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { type Check, download, expectClose, poisoned, randomTensor, upload } from "./check.ts";

const TABLES = `${"p".repeat(12)}iiiiiiii`;

/** Two parts side by side: x (T, K0 + K1), w of each (N, K), out (T, 2N) of rows 2N + 8 apart. */
function checkRows(device: Device, T: number, N: number, Ks: readonly [number, number]): string {
  const random = new Random(T + N);
  const [K0, K1] = Ks;
  const ldx = K0 + K1;
  const ldo = 2 * N + 8;
  const x = randomTensor(random, [T, ldx], "bf16");
  const ws = Ks.map((K) => randomTensor(random, [N, K], "bf16"));
  const [xAt, wAt] = [upload(device, x), ws.map((w) => upload(device, w))];
  const out = poisoned(device, "bf16", [T, ldo]);
  const kernel = loadModule(device, ["skinny"], { SHORT: N, USE_F16: 0 }).kernel(
    "skinny_rows",
    `${TABLES}iii`,
  );
  const pointers = [xAt, xAt + K0 * 2, 0, 0, ...wAt, 0, 0, out, out + N * 2, 0, 0];
  kernel.launch(
    [Math.ceil(T / 32), 2],
    256,
    [...pointers, K0, K1, 0, 0, K0, K1, 0, 0, T, ldx, ldo],
    8 * 32 * N * 4,
  );
  const xs = toFloat64(x);
  const wide = toFloat64(download(device, out, "bf16", [T, ldo]));
  const got = Float64Array.from(
    { length: T * 2 * N },
    (_, i) => wide[Math.floor(i / (2 * N)) * ldo + (i % (2 * N))]!,
  );
  const expected = Float64Array.from(got, (_, i) => {
    const [t, n, part] = [Math.floor(i / (2 * N)), i % N, Math.floor((i % (2 * N)) / N)];
    const w = toFloat64(ws[part]!);
    let sum = 0;
    for (let k = 0; k < Ks[part]!; k++) sum += xs[t * ldx + part * K0 + k]! * w[n * Ks[part]! + k]!;
    return sum;
  });
  return expectClose("rows", tensor("f64", [got.length], got), expected, 3e-3);
}

interface TokensCase {
  readonly T: number;
  readonly N: number;
  readonly Fs: readonly [number, number];
  readonly splits: number;
  readonly isFlipped: boolean;
}

/** Two parts: out_i (F, N), or (N, F) when `isFlipped`, += 0.5 · xᵀ·g; run twice, so that counters must be reset. */
function checkTokens(device: Device, test: TokensCase): string {
  const { T, N, Fs } = test;
  const random = new Random(T * N);
  const x = randomTensor(random, [T, Fs[0] + Fs[1]], "bf16");
  const g = randomTensor(random, [T, 2 * N], "bf16");
  const start = Fs.map((F) => randomTensor(random, [F, N]));
  const outs = start.map((each) => upload(device, each));
  runTokens(device, test, { x: upload(device, x), g: upload(device, g), outs });
  const expected = expectedTokens(test, start, [toFloat64(x), toFloat64(g)]);
  return Fs.map((F, part) => {
    const got = download(device, outs[part]!, "f32", [F * N]);
    return expectClose(`tokens ${part}`, got, expected[part]!, 1e-5);
  }).join(", ");
}

function runTokens(
  device: Device,
  { T, N, Fs, splits, isFlipped }: TokensCase,
  at: { readonly x: number; readonly g: number; readonly outs: readonly number[] },
): void {
  const blocks = Fs.map((F) => Math.ceil(F / 64));
  const total = blocks[0]! + blocks[1]!;
  const scratch = allocateDevice(device, 4096 + total * splits * 64 * N * 4, "a check");
  fillZero(device, scratch, 4096);
  const kernel = loadModule(device, ["skinny"], { SHORT: N, USE_F16: 0 }).kernel(
    "skinny_tokens",
    `${TABLES}iiiiiifpp`,
  );
  const pointers = [at.x, at.x + Fs[0] * 2, 0, 0, at.g, at.g + N * 2, 0, 0, ...at.outs, 0, 0];
  const tables = [...Fs, 0, 0, 0, blocks[0]!, 0, 0];
  const strides = [Fs[0] + Fs[1], 2 * N, ...(isFlipped ? [1, Fs[0]] : [N, 1])];
  const values = [...pointers, ...tables, 2, T, ...strides, 0.5, scratch + 4096, scratch];
  for (let run = 0; run < 2; run++)
    kernel.launch([total, splits], 128, values, 4 * 64 * (72 + N + 8) * 2);
}

function expectedTokens(
  { T, N, Fs, isFlipped }: TokensCase,
  start: readonly Tensor[],
  [xs, gs]: readonly [Float64Array, Float64Array],
): Float64Array[] {
  const ldx = Fs[0] + Fs[1];
  return Fs.map((F, part) => {
    const before = toFloat64(start[part]!);
    return Float64Array.from({ length: F * N }, (_, i) => {
      const [f, n] = isFlipped ? [i % F, Math.floor(i / F)] : [Math.floor(i / N), i % N];
      let sum = 0;
      for (let t = 0; t < T; t++)
        sum += xs[t * ldx + part * Fs[0] + f]! * gs[t * 2 * N + part * N + n]!;
      return before[i]! + sum; // 0.5, twice
    });
  });
}

export const checks: readonly Check[] = [
  ...(
    [
      [32, 16, [64, 320]],
      [45, 48, [576, 32]],
      [100, 64, [96, 512]],
      [1, 8, [32, 64]],
    ] as const
  ).map(([T, N, Ks]) => ({
    name: `skinny rows T ${T} N ${N} K ${Ks.join(" ")}`,
    run: (device: Device) => checkRows(device, T, N, Ks),
  })),
  ...(
    [
      [64, 16, [64, 128], 1, false],
      [200, 48, [192, 192], 3, true],
      [333, 16, [72, 40], 2, false],
      [70, 8, [64, 64], 2, true],
    ] as const
  ).map(([T, N, Fs, splits, isFlipped]) => ({
    name: `skinny tokens T ${T} N ${N} F ${Fs.join(" ")} in ${splits}${isFlipped ? " flipped" : ""}`,
    run: (device: Device) => checkTokens(device, { T, N, Fs, splits, isFlipped }),
  })),
];
