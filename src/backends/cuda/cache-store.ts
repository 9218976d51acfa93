/** @file Key/value caches on the GPU: they outlive programs, which read a range of their slots and append rows. */
import type { Shape } from "../../tensor/shape.ts";
import { sizeOf } from "../../tensor/shape.ts";
import { allocateDevice, type Device, freeDevice } from "./device.ts";
import { fillZero } from "./memory.ts";
import { newValue, STORAGE_BYTES, type Storage, type Value } from "./plan/value.ts";

export interface CacheStore {
  /** Grows when a cache moves: programs that were built before must be built again. */
  readonly version: number;
  /** The first slots of a cache as a value of `shape` (B, P, …), with room for more rows behind them. */
  view(name: string, shape: Shape, storage: Storage): Value;
  /** Makes room for `rows` (B, T, …) behind the first `slots`; returns the whole cache as (B, capacity, …). */
  target(name: string, rows: Shape, slots: number, storage: Storage): Value;
}

interface Cache {
  address: number;
  batch: number;
  capacity: number;
  inner: number;
}

const SMALLEST = 512;

export function cacheStore(device: Device): CacheStore {
  const caches = new Map<string, Cache>();
  let version = 0;

  function reserve(
    name: string,
    { batch, slots, inner }: { batch: number; slots: number; inner: number },
    storage: Storage,
  ): Cache {
    const known = caches.get(name);
    if (known && known.batch === batch && known.inner === inner && known.capacity >= slots)
      return known;
    const capacity = Math.max(SMALLEST, 2 ** Math.ceil(Math.log2(slots)));
    const row = inner * STORAGE_BYTES[storage];
    const address = allocateDevice(device, batch * capacity * row, "key/value caches");
    fillZero(device, address, batch * capacity * row); // what is masked must still be finite
    if (known) {
      const kept = Math.min(known.capacity, capacity);
      for (let b = 0; b < Math.min(batch, known.batch) && inner === known.inner; b++)
        device.driver.call.cuMemcpyDtoDAsync_v2(
          address + b * capacity * row,
          known.address + b * known.capacity * row,
          kept * row,
          device.stream,
        );
      device.driver.call.cuStreamSynchronize(device.stream);
      freeDevice(device, known.address);
    }
    const cache = { address, batch, capacity, inner };
    caches.set(name, cache);
    version++;
    return cache;
  }

  const valueOf = ({ address, capacity, inner }: Cache, shape: Shape, storage: Storage): Value => {
    const value = newValue(shape, storage);
    const region = { bytes: value.region.bytes, address, isPlanned: false };
    return { ...value, region, cols: shape[1]! * inner, ld: capacity * inner };
  };

  return {
    get version() {
      return version;
    },
    view(name, shape, storage) {
      const inner = sizeOf(shape.slice(2));
      const sizes = { batch: shape[0]!, slots: shape[1]! + 1, inner };
      return valueOf(reserve(name, sizes, storage), shape, storage);
    },
    target(name, rows, slots, storage) {
      const inner = sizeOf(rows.slice(2));
      const sizes = { batch: rows[0]!, slots: slots + rows[1]!, inner };
      const cache = reserve(name, sizes, storage);
      return valueOf(cache, [rows[0]!, cache.capacity, ...rows.slice(2)], storage);
    },
  };
}
