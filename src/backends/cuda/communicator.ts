/** @file The processes that train together on a GPU each: sums of values over all of them. */
import { LorikeetError } from "../../errors.ts";
import { allocateDevice, type Device } from "./device.ts";
import { out32, out64, STATUS } from "./ffi/driver.ts";
import { NCCL_TYPE, type Nccl, openNccl, UNIQUE_ID_BYTES } from "./ffi/nccl.ts";
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
  /**
   * Waits for the sums on the stream.
   * @throws LorikeetError `nccl` when another rank is lost, or does not come for half an hour
   */
  settled(): Promise<void>;
  /** Adds up a few numbers. @throws LorikeetError `nccl` as `settled` */
  sum(values: readonly number[]): Promise<number[]>;
  dispose(): void;
}

const MAX_VALUES = 16;
const SUM = 0;
/** Rank 0 may make samples and write files while the others wait. */
const PATIENCE_MS = 30 * 60_000;

/**
 * Meets the other ranks.
 * @throws LorikeetError `cuda-library` without NCCL, `nccl` when they do not come together
 */
export function openCommunicator(
  device: Device,
  { rank, size, address }: RankPlace,
  patience: number = PATIENCE_MS,
): Communicator {
  const nccl = openNccl();
  const { call } = nccl;
  // with this set every rank is given the same id, and rank 0 listens at the address
  process.env["NCCL_COMM_ID"] = address;
  const id = new Uint8Array(UNIQUE_ID_BYTES);
  call.ncclGetUniqueId(id);
  call.ncclCommInitRankScalable(out64, size, rank, 1, id, null);
  const communicator = out64[0]!;
  const shared = allocateDevice(device, MAX_VALUES * 8, "sums over processes");
  let isLost = false;
  const addUp = (at: number, count: number, type: number): void =>
    void call.ncclAllReduce(...([at, at, count, type, SUM, communicator, device.stream] as const));
  const settled = async (): Promise<void> => {
    try {
      await untilDone(device, nccl, communicator, patience);
    } catch (error) {
      // ends the kernels that wait for the others; nothing else would, and all that follows waits for them
      if (!isLost) nccl.raw.ncclCommAbort(communicator);
      isLost = true;
      throw error;
    }
  };
  return {
    settled,
    addUp: (at, count) => {
      addUp(at, count, NCCL_TYPE.f32);
    },
    async sum(values) {
      const data = Float64Array.from(values);
      device.driver.call.cuStreamSynchronize(device.stream);
      writeDevice(device, shared, data);
      addUp(shared, data.length, NCCL_TYPE.f64);
      await settled();
      readDevice(device, shared, data);
      return [...data];
    },
    dispose() {
      if (!isLost) call.ncclCommDestroy(communicator);
    },
  };
}

/** Waits for what is on the stream without blocking the event loop, so that signals end a process that waits in vain. */
async function untilDone(
  device: Device,
  { call }: Nccl,
  communicator: bigint,
  patience: number,
): Promise<void> {
  const end = performance.now() + patience;
  for (;;) {
    device.expectOpen();
    const status = device.driver.raw.cuStreamQuery(device.stream);
    if (status === 0) return;
    if (status !== STATUS.notReady) device.driver.call.cuStreamSynchronize(device.stream);
    call.ncclCommGetAsyncError(communicator, out32);
    const isLate = performance.now() > end;
    if (out32[0] !== 0 || isLate)
      throw new LorikeetError(
        "nccl",
        isLate
          ? `Expected the other processes at a sum, they did not come in ${Math.round(patience / 1000)} s`
          : `Expected the other processes at a sum, NCCL lost one (status ${out32[0]})`,
        { hint: "The process that failed says why. Start all again with --resume." },
      );
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Sums of the gradients over processes: once, until they are used or cleared. */
export interface GradientSum {
  addUp(): Promise<void>;
  reset(): void;
}

/** @param arrays addresses and sizes of all float32 gradients */
export function gradientSum(
  ranks: Communicator | undefined,
  arrays: () => readonly (readonly [address: number, count: number])[],
): GradientSum {
  let isDone = false;
  return {
    async addUp() {
      if (!isDone && ranks) {
        for (const array of arrays()) ranks.addUp(...array);
        await ranks.settled();
      }
      isDone = true;
    },
    reset() {
      isDone = false;
    },
  };
}
