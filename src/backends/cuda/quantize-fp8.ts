/** @file Frozen matrices as 8-bit floats with a factor a row, both as they are and transposed, for the GPU's fp8 products. */
import { LorikeetError } from "../../errors.ts";
import { allocateDevice, type Device, freeDevice } from "./device.ts";
import { type Kernel, loadModule } from "./kernels.ts";
import { fillZero } from "./memory.ts";
import { addressOf, STORAGE_BYTES, type Storage, type Value } from "./plan/value.ts";

/** Codes without gaps and a factor for each row. */
export interface Fp8Matrix {
  readonly codes: number;
  readonly scales: number;
}

/** A matrix W (rows, columns) in 8 bits, twice: products read rows of W forward and rows of Wᵀ backward. */
export interface Fp8Weight {
  readonly bytes: number;
  readonly straight: Fp8Matrix;
  readonly transposed: Fp8Matrix;
  /** Writes W's rows to `target`, which may have gaps between rows. */
  decode(target: Value): void;
}

/** Sides that fp8 products take: multiples of this. */
const SIDE = 16;

/** Whether products of a (rows, columns) matrix can run in fp8. */
export function isFp8Suited(rows: number, columns: number): boolean {
  return rows % SIDE === 0 && columns % SIDE === 0;
}

/**
 * Encodes float32 matrices of one device.
 * @throws LorikeetError `unsupported-base-dtype` where the GPU has no fp8 products with a factor a row
 */
export function openFp8(
  device: Device,
  storage: Storage,
): { encode(source: number, rows: number, columns: number): Fp8Weight } {
  checkFp8(device);
  const module = loadModule(device, ["fp8"], { S: "f32", T: storage, PACKS: 0 });
  const kernels = {
    tops: module.kernel("column_tops", "ppii"),
    columns: module.kernel("fp8_columns", "ppppii"),
    decode: module.kernel("fp8_decode", "pppiii"),
  };
  return { encode: (source, rows, columns) => encode(device, kernels, source, [rows, columns]) };
}

/** Most eights of a row that a thread keeps in registers. */
const MAX_KEPT = 16;

/**
 * Kernels that encode rows of `columns`, any of which may be the fastest. Parameters are the rows, codes, factors, columns
 * and elements from row to row.
 */
export function rowEncoders(device: Device, storage: Storage, columns: number): Kernel[] {
  const packs = Math.ceil(columns / 8 / 256);
  const isKept = STORAGE_BYTES[storage] === 2 && packs <= MAX_KEPT;
  return (isKept ? [packs, 0] : [0]).map((PACKS) =>
    loadModule(device, ["fp8"], { S: storage, T: storage, PACKS }).kernel("fp8_rows", "pppii"),
  );
}

/** @throws LorikeetError `unsupported-base-dtype` */
export function checkFp8({ info }: Device): void {
  if (info.capability[0] === 9) return;
  throw new LorikeetError(
    "unsupported-base-dtype",
    `Expected a GPU of compute capability 9.0 for a base in fp8, ${info.name} has ${info.capability.join(".")}`,
    { hint: "Use --base-dtype bf16, int8 or nf4." },
  );
}

function encode(
  device: Device,
  kernels: Readonly<Record<"tops" | "columns" | "decode", Kernel>>,
  source: number,
  [rows, columns]: readonly [number, number],
): Fp8Weight {
  const whole = (size: number): number => Math.ceil(size / 256) * 256;
  const sizes = [rows * columns, rows * columns, rows * 4, columns * 4].map(whole);
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  let next = allocateDevice(device, bytes, "weights in fp8");
  const [codes, turned, scales, turnedScales] = sizes.map((size) => (next += size) - size) as [
    ...[number, number, number, number],
  ];
  const tops = allocateDevice(device, columns * 4, "encoding weights");
  fillZero(device, tops, columns * 4);
  const values = [source, codes, scales, columns, columns];
  rowEncoders(device, "f32", columns)[0]!.launch([rows], 256, values);
  kernels.tops.launch([Math.ceil(columns / 256), Math.ceil(rows / 64)], 256, [
    ...[source, tops, rows, columns],
  ]);
  kernels.columns.launch([Math.ceil(columns / 32), Math.ceil(rows / 32)], 256, [
    ...[source, tops, turned, turnedScales, rows, columns],
  ]);
  device.driver.call.cuStreamSynchronize(device.stream);
  freeDevice(device, tops);
  return {
    bytes,
    straight: { codes, scales },
    transposed: { codes: turned, scales: turnedScales },
    decode(target) {
      const grid = Math.max(1, Math.min(4096, Math.ceil((rows * columns) / 2048)));
      const values = [codes, scales, addressOf(target), rows, columns, target.ld];
      kernels.decode.launch([grid], 256, values);
    },
  };
}
