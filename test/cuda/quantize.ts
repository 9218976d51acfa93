/** @file Quantized weights: codes and decoded values against plain loops, and a model on them. */
import type { Device } from "../../src/backends/cuda/device.ts";
import { dynamicMap, openQuantizer } from "../../src/backends/cuda/quantize.ts";
import { newValue } from "../../src/backends/cuda/plan/value.ts";
import { Random } from "../../src/tensor/random.ts";
import { type Check, download, expectClose, poisoned, randomTensor, upload } from "./check.ts";

const NF4 = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
  -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
  0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
  0.7229568362236023, 1,
];

const nearest = (table: ArrayLike<number>, x: number): number => {
  let best = 0;
  for (let i = 1; i < table.length; i++)
    if (Math.abs(table[i]! - x) < Math.abs(table[best]! - x)) best = i;
  return table[best]!;
};

/** bitsandbytes' 4-bit normal floats with double quantization, as loops. */
function referenceNf4(x: Float32Array): Float64Array {
  const scales = Array.from({ length: x.length / 64 }, (_, b) =>
    Math.max(...x.subarray(b * 64, (b + 1) * 64).map(Math.abs)),
  );
  const mean = scales.reduce((sum, scale) => sum + scale, 0) / scales.length;
  const map = dynamicMap();
  const decoded = scales.map((scale, i) => {
    const group = scales.slice(Math.floor(i / 256) * 256, Math.floor(i / 256) * 256 + 256);
    const factor = Math.max(...group.map((each) => Math.abs(each - mean)));
    return nearest(map, (scale - mean) / factor) * factor + mean;
  });
  return Float64Array.from(
    x,
    (value, i) => nearest(NF4, value / scales[Math.floor(i / 64)]!) * decoded[Math.floor(i / 64)]!,
  );
}

function referenceInt8(x: Float32Array, columns: number): Float64Array {
  return Float64Array.from(x, (value, i) => {
    const row = x.subarray(
      Math.floor(i / columns) * columns,
      (Math.floor(i / columns) + 1) * columns,
    );
    const scale = Math.max(...row.map(Math.abs)) / 127;
    return Math.round(value / scale) * scale;
  });
}

function checkKind(
  device: Device,
  kind: "nf4" | "int8",
  [rows, columns]: readonly [number, number],
): string {
  const source = randomTensor(new Random(rows), [rows, columns]);
  const ld = columns + 64;
  const at = upload(device, source);
  const out = poisoned(device, "f32", [rows, ld]);
  const quantizer = openQuantizer(device, kind, "f32");
  const weight = quantizer.encode(at, rows, columns);
  const target = {
    ...newValue([rows, columns], "f32"),
    region: { bytes: rows * ld * 4, address: out, isPlanned: false },
    cols: columns,
    ld,
  };
  weight.decode(target);
  const raw = download(device, out, "f32", [rows, ld]).data as Float32Array;
  const data = Float32Array.from(
    { length: rows * columns },
    (_, i) => raw[Math.floor(i / columns) * ld + (i % columns)]!,
  );
  const values = source.data as Float32Array;
  const expected = kind === "nf4" ? referenceNf4(values) : referenceInt8(values, columns);
  const got = { dtype: "f32", shape: [rows, columns], data } as const;
  // a value in the middle between two codes may fall to either side
  const report = expectClose("decoded", got, expected, 2e-3);
  return `${report}, ${expectClose("to the original", got, values, kind === "nf4" ? 0.12 : 0.01)}, ${((weight.bytes * 8) / (rows * columns)).toFixed(3)} bits`;
}

export const checks: readonly Check[] = (["nf4", "int8"] as const).flatMap((kind) =>
  (
    [
      [8, 64],
      [33, 192],
      [128, 1024],
    ] as const
  ).map((shape) => ({
    name: `quantize ${kind} [${shape.join(", ")}]`,
    run: (device: Device) => checkKind(device, kind, shape),
  })),
);
