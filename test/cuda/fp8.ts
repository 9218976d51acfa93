/** @file Matrices in 8-bit floats: their codes in both orders, and products of coded rows, against float64 loops. */
import type { Device } from "../../src/backends/cuda/device.ts";
import { gemmPlanner } from "../../src/backends/cuda/gemm.ts";
import { type Fp8Matrix, openFp8, rowEncoders } from "../../src/backends/cuda/quantize-fp8.ts";
import { newValue } from "../../src/backends/cuda/plan/value.ts";
import { toFloat64 } from "../../src/tensor/convert.ts";
import { Random } from "../../src/tensor/random.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";
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

/** The nearest 8-bit float of 4 bits of exponent and 3 of mantissa. */
function nearest(x: number): number {
  const size = Math.min(448, Math.abs(x));
  const step = 2 ** Math.max(-9, Math.floor(Math.log2(size)) - 3);
  const steps = size / step;
  const whole = Math.round(steps);
  const even = Math.abs(steps - Math.trunc(steps)) === 0.5 && whole % 2 === 1 ? whole - 1 : whole;
  return Math.sign(x) * even * step;
}

/** Each row of `columns` values as what its codes stand for. */
function decoded(x: Float64Array, columns: number): Float64Array {
  return x.map((value, i) => {
    const row = x.subarray(
      Math.floor(i / columns) * columns,
      (Math.floor(i / columns) + 1) * columns,
    );
    const scale = row.reduce((top, each) => Math.max(top, Math.abs(each)), 0) / 448;
    return nearest(value / scale) * scale;
  });
}

function transposed(x: Float64Array, columns: number): Float64Array {
  const rows = x.length / columns;
  return x.map((_, i) => x[(i % rows) * columns + Math.floor(i / rows)]!);
}

function decodeCode(code: number): number {
  const [exponent, mantissa] = [(code >> 3) & 15, code & 7];
  const size = exponent > 0 ? (1 + mantissa / 8) * 2 ** (exponent - 7) : mantissa * 2 ** -9;
  return code > 127 ? -size : size;
}

function readMatrix(device: Device, { codes, scales }: Fp8Matrix, [rows, columns]: Sizes): Tensor {
  const bytes = download(device, codes, "u8", [rows, columns]).data as Uint8Array;
  const factors = download(device, scales, "f32", [rows]).data as Float32Array;
  const values = Float64Array.from(
    bytes,
    (code, i) => decodeCode(code) * factors[Math.floor(i / columns)]!,
  );
  return tensor("f64", [rows, columns], values);
}

type Sizes = readonly [number, number];

function requireFp8({ info }: Device): void {
  if (info.capability[0] !== 9) throw new Skipped("fp8 products need compute capability 9.0");
}

/** Codes near the middle between two numbers may fall to either side after a factor that is rounded. */
const LIMIT = 4e-3;

function checkCodes(device: Device, [rows, columns]: Sizes): string {
  requireFp8(device);
  const source = randomTensor(new Random(rows), [rows, columns]);
  const at = upload(device, source);
  const weight = openFp8(device, "f32").encode(at, rows, columns);
  const ld = columns + 64;
  const out = poisoned(device, "f32", [rows, ld]);
  weight.decode({
    ...newValue([rows, columns], "f32"),
    region: { bytes: rows * ld * 4, address: out, isPlanned: false },
    ...{ cols: columns, ld },
  });
  const wide = download(device, out, "f32", [rows, ld]).data as Float32Array;
  const back = Float64Array.from(
    { length: rows * columns },
    (_, i) => wide[Math.floor(i / columns) * ld + (i % columns)]!,
  );
  const values = toFloat64(source);
  const [straight, turned] = [decoded(values, columns), decoded(transposed(values, columns), rows)];
  release(device, [at, out]);
  return [
    expectClose("codes", readMatrix(device, weight.straight, [rows, columns]), straight, LIMIT),
    expectClose(
      "transposed",
      readMatrix(device, weight.transposed, [columns, rows]),
      turned,
      LIMIT,
    ),
    expectClose("decoded", tensor("f64", [back.length], back), straight, LIMIT),
    expectClose("to the original", tensor("f64", [back.length], back), values, 0.05),
  ].join(", ");
}

/** Codes and factors of rows that lie apart, by each kernel that there is. */
function checkRows(device: Device, [rows, columns]: Sizes): string {
  requireFp8(device);
  const ld = columns + 64;
  const x = randomTensor(new Random(columns), [rows, ld], "bf16");
  const at = upload(device, x);
  const inside = toFloat64(x).filter((_, i) => i % ld < columns);
  const expected = decoded(inside, columns);
  return rowEncoders(device, "bf16", columns)
    .map((kernel, i) => {
      const codes = poisoned(device, "u8", [rows, columns]);
      const scales = poisoned(device, "f32", [rows]);
      kernel.launch([rows], 256, [at, codes, scales, columns, ld]);
      const got = readMatrix(device, { codes, scales }, [rows, columns]);
      // a value just between two codes may become either
      return expectClose(`kernel ${i}`, got, expected, 1e-2);
    })
    .join(", ");
}

/** d = x·wᵀ + c of coded rows, in bf16. */
function checkProduct(device: Device, [M, N, K]: readonly [number, number, number]): string {
  requireFp8(device);
  const random = new Random(M + N);
  const [x, w] = [randomTensor(random, [M, K], "bf16"), randomTensor(random, [N, K])];
  const c = randomTensor(random, [M, N], "bf16");
  const at = { x: upload(device, x), w: upload(device, w), d: upload(device, c) };
  const codes = poisoned(device, "u8", [M, K]);
  const scales = poisoned(device, "f32", [M]);
  const weight = openFp8(device, "bf16").encode(at.w, N, K);
  rowEncoders(device, "bf16", K)[0]!.launch([M], 256, [at.x, codes, scales, K, K]);
  const { straight } = weight;
  const operands = {
    ...{ a: codes, b: straight.codes, c: at.d, d: at.d },
    ...{ scaleA: scales, scaleB: straight.scales },
  };
  const spec = {
    ...({ M, N, K, transA: false, transB: true, type: "f8_e4m3", outType: "bf16" } as const),
    ...{ lda: K, ldb: K, ldc: N, ldd: N, alpha: 1, beta: 1 },
  };
  const scratch = poisoned(device, "bf16", [M, N]);
  gemmPlanner(device)
    .plan(spec, { ...operands, c: scratch, d: scratch })
    .enqueue(operands);
  const [a, b] = [decoded(toFloat64(x), K), decoded(toFloat64(w), K)];
  const expected = toFloat64(c).map((value, i) => {
    const [m, n] = [Math.floor(i / N), i % N];
    let sum = value;
    for (let k = 0; k < K; k++) sum += a[m * K + k]! * b[n * K + k]!;
    return sum;
  });
  const report = expectClose("product", download(device, at.d, "bf16", [M, N]), expected, 8e-3);
  release(device, [...Object.values(at), codes, scales, scratch]);
  return report;
}

export const checks: readonly Check[] = [
  ...(
    [
      [5, 576],
      [3, 4160],
      [2, 8200],
    ] as const
  ).map((sizes) => ({
    name: `fp8 rows [${sizes.join(", ")}]`,
    run: (device: Device) => checkRows(device, sizes),
  })),
  ...(
    [
      [16, 64],
      [48, 272],
      [128, 1024],
    ] as const
  ).map((sizes) => ({
    name: `fp8 codes [${sizes.join(", ")}]`,
    run: (device: Device) => checkCodes(device, sizes),
  })),
  ...(
    [
      [16, 32, 64],
      [64, 128, 1024],
      [256, 272, 576],
    ] as const
  ).map((sizes) => ({
    name: `fp8 product ${sizes.join(" x ")}`,
    run: (device: Device) => checkProduct(device, sizes),
  })),
];
