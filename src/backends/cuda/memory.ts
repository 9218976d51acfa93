/** @file Moving bytes between host and device: pinned staging memory, row-wise copies. */
import type { Device } from "./device.ts";
import { out64 } from "./ffi/driver.ts";
import { viewNative } from "./ffi/library.ts";

const DEFAULT_STREAM = 0;

/** Page-locked host memory, which the GPU copies from and to at full speed. */
export interface PinnedMemory {
  readonly address: number;
  readonly buffer: ArrayBuffer;
  dispose(): void;
}

/** Pinned memory; it is given back with the device if not before. */
export function allocatePinned(device: Device, bytes: number): PinnedMemory {
  const { call, raw } = device.driver;
  call.cuMemHostAlloc(out64, Math.max(bytes, 8), 0);
  const address = Number(out64[0]);
  const release = (): void => void raw.cuMemFreeHost(address);
  device.releases.add(release);
  return {
    address,
    buffer: viewNative(address, Math.max(bytes, 8)),
    dispose() {
      if (device.releases.delete(release)) release();
    },
  };
}

/** Copies `data` to the device. Blocks until it is there. */
export function writeDevice(device: Device, at: number, data: ArrayBufferView): void {
  if (data.byteLength === 0) return;
  const { call } = device.driver;
  call.cuMemcpyHtoD_v2(at, data, data.byteLength);
  // the copy may still be on its way from the driver's staging memory, and our stream does not wait for this one
  call.cuStreamSynchronize(DEFAULT_STREAM);
}

/** Copies from the device into `data`, after everything on the stream. */
export function readDevice(device: Device, at: number, data: ArrayBufferView): void {
  device.driver.call.cuStreamSynchronize(device.stream);
  if (data.byteLength > 0) device.driver.call.cuMemcpyDtoH_v2(data, at, data.byteLength);
}

export function fillZero(device: Device, at: number, bytes: number): void {
  if (bytes > 0) device.driver.call.cuMemsetD8Async(at, 0, bytes, device.stream);
}
