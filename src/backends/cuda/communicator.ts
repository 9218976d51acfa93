/** @file The processes that train together on a GPU each: sums of values over all of them. */
import { allocateDevice, type Device } from "./device.ts";
import { out64 } from "./ffi/driver.ts";
import { NCCL_TYPE, openNccl, UNIQUE_ID_BYTES } from "./ffi/nccl.ts";
import { readDevice, writeDevice } from "./memory.ts";

/** Where a process stands among those that train together. */
export interface RankPlace {
  readonly rank: number;
  readonly size: number;
  /** Host and port where rank 0 listens. */
  readonly address: string;
}

/** Sums over all ranks. Every rank must ask for the same sums in the same order; each waits for the others. */
export interface Communicator {
  /** Adds up `count` float32 values at `address`, in place, on the device's stream. */
  addUp(address: number, count: number): void;
  /** Adds up a few numbers. */
  sum(values: readonly number[]): number[];
  dispose(): void;
}

const MAX_VALUES = 16;
const SUM = 0;

/**
 * Meets the other ranks.
 * @throws LorikeetError `cuda-library` without NCCL, `nccl` when they do not come together
 */
export function openCommunicator(device: Device, { rank, size, address }: RankPlace): Communicator {
  const { call } = openNccl();
  // with this set every rank is given the same id, and rank 0 listens at the address
  process.env["NCCL_COMM_ID"] = address;
  const id = new Uint8Array(UNIQUE_ID_BYTES);
  call.ncclGetUniqueId(id);
  call.ncclCommInitRankScalable(out64, size, rank, 1, id, null);
  const communicator = out64[0]!;
  const shared = allocateDevice(device, MAX_VALUES * 8, "sums over processes");
  const addUp = (at: number, count: number, type: number): void =>
    void call.ncclAllReduce(...([at, at, count, type, SUM, communicator, device.stream] as const));
  return {
    addUp: (at, count) => {
      addUp(at, count, NCCL_TYPE.f32);
    },
    sum(values) {
      const data = Float64Array.from(values);
      device.driver.call.cuStreamSynchronize(device.stream);
      writeDevice(device, shared, data);
      addUp(shared, data.length, NCCL_TYPE.f64);
      readDevice(device, shared, data);
      return [...data];
    },
    dispose: () => void call.ncclCommDestroy(communicator),
  };
}

/** Sums of the gradients over processes: once, until they are used or cleared. */
export interface GradientSum {
  addUp(): void;
  reset(): void;
}

/** @param arrays addresses and sizes of all float32 gradients */
export function gradientSum(
  ranks: Communicator | undefined,
  arrays: () => readonly (readonly [address: number, count: number])[],
): GradientSum {
  let isDone = false;
  return {
    addUp() {
      if (!isDone) for (const array of arrays()) ranks?.addUp(...array);
      isDone = true;
    },
    reset() {
      isDone = false;
    },
  };
}
