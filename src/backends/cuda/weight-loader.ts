/** @file Weights from files or memory to the device, by way of pinned staging memory, converted on the way. */
import { closeSync, openSync, readSync } from "node:fs";
import { LorikeetError } from "../../errors.ts";
import { convert } from "../../tensor/convert.ts";
import { BYTES, type DType } from "../../tensor/dtype.ts";
import { sizeOf } from "../../tensor/shape.ts";
import type { WeightSource } from "../backend.ts";
import { allocateDevice, type Device, freeDevice } from "./device.ts";
import { type Kernel, loadModule } from "./kernels.ts";
import { allocatePinned } from "./memory.ts";
import { addressOf, STORAGE_BYTES, type Storage, type Value } from "./plan/value.ts";

const STAGING = 64 << 20;

/** Staging memory on both sides; copies on the device overlap with reading the next piece. */
export interface Loader {
  readonly device: Device;
  /** Sends `count` elements that `fill` writes to staging memory, converted, to `to` from element `first` on. */
  send(
    dtype: DType,
    to: Value,
    range: { readonly first: number; readonly count: number },
    fill: (target: Uint8Array) => void,
  ): void;
  dispose(): void;
}

const convertible: Partial<Record<DType, Storage>> = { f32: "f32", bf16: "bf16", f16: "f16" };

/** Opens a loader; it holds staging memory until it is disposed. */
export function openLoader(device: Device): Loader {
  const { call } = device.driver;
  const pinned = allocatePinned(device, STAGING);
  const staging = allocateDevice(device, STAGING, "loading weights");
  const kernels = new Map<string, Kernel>();
  const kernelOf = (from: Storage, to: Storage): Kernel => {
    const key = `${from} ${to}`;
    if (!kernels.has(key))
      kernels.set(
        key,
        loadModule(device, ["rows"], { S: from, T: to }).kernel("convert_rows", "ppiiiif"),
      );
    return kernels.get(key)!;
  };
  return {
    device,
    send(dtype, to, { first, count }, fill) {
      const from = convertible[dtype]!;
      call.cuStreamSynchronize(device.stream);
      fill(new Uint8Array(pinned.buffer, 0, count * BYTES[dtype]));
      const columns = Math.min(to.cols, to.size);
      const target =
        addressOf(to) +
        Math.floor(first / columns) * Math.min(to.ld, to.size) * STORAGE_BYTES[to.storage];
      if (from === to.storage && to.ld === to.cols) {
        call.cuMemcpyHtoDAsync_v2(
          addressOf(to) + first * BYTES[dtype],
          pinned.address,
          count * BYTES[dtype],
          device.stream,
        );
        return;
      }
      call.cuMemcpyHtoDAsync_v2(staging, pinned.address, count * BYTES[dtype], device.stream);
      const isRows = to.ld !== to.cols;
      const [rows, width] = isRows ? [count / columns, columns] : [1, count];
      const at = isRows ? target : addressOf(to) + first * STORAGE_BYTES[to.storage];
      const grid = Math.min(4096, Math.ceil(count / 256));
      kernelOf(from, to.storage).launch([grid], 256, [
        staging,
        at,
        rows,
        width,
        width,
        isRows ? to.ld : width,
        1,
      ]);
    },
    dispose() {
      call.cuStreamSynchronize(device.stream);
      freeDevice(device, staging);
      pinned.dispose();
    },
  };
}

/**
 * Reads the weight `name` into `to`.
 * @throws LorikeetError `shape` when it has another number of elements
 */
export async function loadWeight(
  loader: Loader,
  source: WeightSource,
  name: string,
  to: Value,
): Promise<void> {
  const weight = source.get(name);
  if (sizeOf(weight.shape) !== to.size)
    throw new LorikeetError(
      "shape",
      `Expected ${name} of shape [${to.shape.join(", ")}], got [${weight.shape.join(", ")}]`,
    );
  const { bytes } = weight;
  if (bytes.kind === "file" && convertible[weight.dtype]) {
    const file = openSync(bytes.path, "r");
    try {
      sendPieces(loader, weight.dtype, to, (target, offset) => {
        readSync(file, target, 0, target.length, bytes.offset + offset);
      });
    } finally {
      closeSync(file);
    }
    return;
  }
  const read = await source.read(name);
  const value = convertible[read.dtype] ? read : convert(read, "f32");
  const raw = new Uint8Array(value.data.buffer, value.data.byteOffset, value.data.byteLength);
  sendPieces(loader, value.dtype, to, (target, offset) => {
    target.set(raw.subarray(offset, offset + target.length));
  });
}

/** Sends a weight in pieces of whole rows that fit the staging memory. */
function sendPieces(
  loader: Loader,
  dtype: DType,
  to: Value,
  fill: (target: Uint8Array, offset: number) => void,
): void {
  const columns = to.ld === to.cols ? 1 : to.cols;
  const piece = Math.max(1, Math.floor(STAGING / BYTES[dtype] / columns)) * columns;
  for (let first = 0; first < to.size; first += piece) {
    const count = Math.min(piece, to.size - first);
    loader.send(dtype, to, { first, count }, (target) => {
      fill(target, first * BYTES[dtype]);
    });
  }
}
