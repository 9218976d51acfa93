/** @file What the GPU checks share: random data, device buffers with poisoned results, and the error measure. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { WeightSource } from "../../src/backends/backend.ts";
import type { Device } from "../../src/backends/cuda/device.ts";
import { allocateDevice, freeDevice } from "../../src/backends/cuda/device.ts";
import { writeDevice } from "../../src/backends/cuda/memory.ts";
import { decodeSafetensors } from "../../src/formats/safetensors.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { convert, toFloat64 } from "../../src/tensor/convert.ts";
import { allocate, BYTES, type DType } from "../../src/tensor/dtype.ts";
import { type Random } from "../../src/tensor/random.ts";
import { sizeOf, type Shape } from "../../src/tensor/shape.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { memoryWeights } from "../support/tiny.ts";

/** One check on a GPU; throws when it fails, returns what it measured. */
export interface Check {
  readonly name: string;
  /** Starts what takes long and needs no attention; called before the first check runs. */
  prepare?(): void;
  run(device: Device): string | Promise<string>;
}

/** Thrown by a check that this machine cannot run. */
export class Skipped extends Error {}

/** Normal values rounded to `dtype`. */
export function randomTensor(random: Random, shape: Shape, dtype: DType = "f32"): Tensor {
  const data = Float32Array.from({ length: sizeOf(shape) }, () => random.normal());
  return convert({ dtype: "f32", shape, data }, dtype);
}

/** Copies `value` to new device memory. */
export function upload(device: Device, value: Tensor): number {
  const at = allocateDevice(device, value.data.byteLength, "a check");
  writeDevice(device, at, value.data);
  return at;
}

/** Device memory for a result, filled with NaN bits so that what is not written shows. */
export function poisoned(device: Device, dtype: DType, shape: Shape): number {
  const bytes = sizeOf(shape) * BYTES[dtype];
  const at = allocateDevice(device, bytes, "a check");
  device.driver.call.cuMemsetD8Async(at, 0xff, bytes, device.stream);
  return at;
}

/** The tensor at `at`, after all work on the stream. */
export function download(device: Device, at: number, dtype: DType, shape: Shape): Tensor {
  device.driver.call.cuStreamSynchronize(device.stream);
  const data = allocate(dtype, sizeOf(shape));
  if (data.byteLength > 0) device.driver.call.cuMemcpyDtoH_v2(data, at, data.byteLength);
  return { dtype, shape, data };
}

/** ‖actual − expected‖ / ‖expected‖, whose mean square counts as at least 1e-6; NaN when any value is. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(difference / Math.max(norm, 1e-6 * expected.length));
}

/** Throws unless the relative error of `actual` is at most `limit`; returns it as text. */
export function expectClose(
  what: string,
  actual: Tensor,
  expected: ArrayLike<number>,
  limit: number,
): string {
  const values = toFloat64(actual);
  const error = relativeError(values, expected);
  if (error <= limit) return `${what} ${error.toExponential(1)}`;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const gap = Math.abs(values[i]! - expected[i]!);
    if (!(gap <= Math.abs(values[worst]! - expected[worst]!))) worst = i;
  }
  throw new Error(
    `${what}: expected a relative error of at most ${limit}, got ${error}; at ${worst} expected ${expected[worst]}, got ${values[worst]}`,
  );
}

/** Frees everything in `addresses`. */
export function release(device: Device, addresses: readonly number[]): void {
  for (const at of addresses) freeDevice(device, at);
}

/** Where the project is: models and golden values are read from there. */
export const root: string = process.env["LORIKEET_ROOT"] ?? process.cwd();

/** The embedded model: its config and weights. */
export async function storyteller(): Promise<{ config: HfConfig; source: WeightSource }> {
  const folder = join(root, "models/storyteller-6m");
  const { tensors } = await decodeSafetensors(await readFile(join(folder, "model.safetensors")));
  const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as HfConfig;
  return { config, source: memoryWeights(tensors) };
}
