/** @file One GPU: its properties, context, stream, and memory in and out. */
import { LorikeetError } from "../../errors.ts";
import { type Driver, openDriver, out32, out64, STATUS } from "./ffi/driver.ts";

/** What a GPU is, read from the driver. */
export interface DeviceInfo {
  readonly index: number;
  readonly name: string;
  /** Compute capability, for example [9, 0]. */
  readonly capability: readonly [number, number];
  readonly multiprocessors: number;
  readonly totalBytes: number;
  /** Largest shared memory of a block after opting in, in bytes. */
  readonly sharedBytes: number;
  readonly l2Bytes: number;
}

const ATTRIBUTE = { multiprocessors: 16, l2: 38, major: 75, minor: 76, sharedOptIn: 97 } as const;

/** @throws LorikeetError `cuda-device` when there is no GPU of that index */
export function deviceInfo(index: number): DeviceInfo {
  const { call } = openDriver();
  call.cuDeviceGetCount(out32);
  const count = out32[0]!;
  if (index >= count)
    throw new LorikeetError("cuda-device", `Expected GPU ${index}, the driver shows ${count}`, {
      hint:
        count > 0
          ? `Use --device cuda:0 to cuda:${count - 1}.`
          : "Check `nvidia-smi` and CUDA_VISIBLE_DEVICES.",
    });
  call.cuDeviceGet(out32, index);
  const device = out32[0]!;
  const attribute = (id: number): number => {
    call.cuDeviceGetAttribute(out32, id, device);
    return out32[0]!;
  };
  const text = new Uint8Array(256);
  call.cuDeviceGetName(text, text.length, device);
  call.cuDeviceTotalMem_v2(out64, device);
  return {
    index,
    name: new TextDecoder().decode(text.subarray(0, text.indexOf(0))),
    totalBytes: Number(out64[0]),
    capability: [attribute(ATTRIBUTE.major), attribute(ATTRIBUTE.minor)],
    multiprocessors: attribute(ATTRIBUTE.multiprocessors),
    sharedBytes: attribute(ATTRIBUTE.sharedOptIn),
    l2Bytes: attribute(ATTRIBUTE.l2),
  };
}

/** The GPU of a machine's process number `local`: where a launcher shows each process one GPU alone, that one. */
export function gpuOfProcess(local: number): number {
  openDriver().call.cuDeviceGetCount(out32);
  return local % Math.max(1, out32[0]!);
}

/** An opened GPU with one stream. All work of an engine goes to that stream. */
export interface Device {
  readonly info: DeviceInfo;
  readonly driver: Driver;
  readonly stream: bigint;
  /** Bytes that are free for everyone on this GPU. */
  free(): number;
  /** Addresses of what was allocated for this device's work and not freed. */
  readonly owned: Set<number>;
  /** Gives back what else was made for this device's work and is still there: graphs, descriptors, modules. */
  readonly releases: Set<() => void>;
  /**
   * Waits without blocking the event loop.
   * @throws LorikeetError `engine-disposed` when the device was disposed before or meanwhile
   */
  settled(): Promise<void>;
  /** Not disposed of yet. */
  readonly isOpen: boolean;
  /** @throws LorikeetError `engine-disposed` after `dispose`: what was there has no memory any more */
  expectOpen(): void;
  dispose(): void;
}

/**
 * Opens GPU `index` on its primary context (which cuDNN and NCCL use too).
 * @throws LorikeetError `cuda-device` when the GPU is older than compute capability 8.0
 */
export function openDevice(index: number): Device {
  const info = deviceInfo(index);
  if (info.capability[0] < 8)
    throw new LorikeetError(
      "cuda-device",
      `Expected a GPU of compute capability 8.0 or later, ${info.name} has ${info.capability.join(".")}`,
      { hint: "Use `--device cpu`." },
    );
  const driver = openDriver();
  const { call, raw } = driver;
  call.cuDeviceGet(out32, index);
  const handle = out32[0]!;
  call.cuDevicePrimaryCtxRetain(out64, handle);
  call.cuCtxSetCurrent(out64[0]!);
  call.cuStreamCreate(out64, 1);
  const stream = out64[0]!;
  const owned = new Set<number>();
  const releases = new Set<() => void>();
  let isOpen = true;
  const expectOpen = (): void => {
    if (!isOpen)
      throw new LorikeetError(
        "engine-disposed",
        "Expected an engine that is in use, got a disposed one",
      );
  };
  return {
    info,
    driver,
    stream,
    owned,
    releases,
    get isOpen() {
      return isOpen;
    },
    expectOpen,
    free: () => (call.cuMemGetInfo_v2(out64.subarray(0, 1), out64.subarray(1)), Number(out64[0])),
    async settled() {
      for (;;) {
        expectOpen();
        const status = raw.cuStreamQuery(stream);
        if (status === 0) return;
        if (status !== STATUS.notReady) call.cuStreamSynchronize(stream);
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
    // the context stays: library handles of this process live in it
    dispose() {
      if (!isOpen) return;
      isOpen = false;
      raw.cuStreamSynchronize(stream);
      // graphs before the modules whose kernels they launch
      for (const release of [...releases].reverse()) release();
      releases.clear();
      for (const address of owned) raw.cuMemFree_v2(address);
      owned.clear();
      raw.cuStreamDestroy_v2(stream);
    },
  };
}

/** Bytes on the GPU. @throws LorikeetError `cuda-memory` when they do not fit, with the numbers */
export function allocateDevice(device: Device, bytes: number, purpose: string): number {
  const size = Math.max(256, Math.ceil(bytes / 256) * 256);
  const status = device.driver.raw.cuMemAlloc_v2(out64, size);
  if (status === STATUS.outOfMemory)
    throw new LorikeetError(
      "cuda-memory",
      `Expected ${gib(size)} GiB on ${device.info.name} for ${purpose}, ${gib(device.free())} GiB of ${gib(device.info.totalBytes)} are free`,
      {
        hint: "Use a smaller --per-device-train-batch-size (with --gradient-accumulation-steps), a smaller --max-length, --checkpointing on, --base-dtype nf4, or close other programs on this GPU.",
      },
    );
  if (status !== 0) device.driver.call.cuMemAlloc_v2(out64, size);
  const address = Number(out64[0]);
  device.owned.add(address);
  return address;
}

/** Gives back what `allocateDevice` gave. */
export function freeDevice(device: Device, address: number): void {
  if (device.owned.delete(address)) device.driver.call.cuMemFree_v2(address);
}

/** Work recorded once and replayed with one call. */
export interface CapturedGraph {
  launch(): void;
  dispose(): void;
}

/** Records what `enqueue` puts on the device's stream, without running it. */
export function capture(device: Device, enqueue: () => void): CapturedGraph {
  const { call } = device.driver;
  call.cuStreamBeginCapture_v2(device.stream, 1);
  let failure: unknown;
  try {
    enqueue();
  } catch (error) {
    failure = error;
  }
  const status = device.driver.raw.cuStreamEndCapture(device.stream, out64);
  if (failure !== undefined) throw failure as Error;
  if (status !== 0) call.cuStreamEndCapture(device.stream, out64);
  const graph = out64[0]!;
  call.cuGraphInstantiateWithFlags(out64, graph, 0);
  const executable = out64[0]!;
  call.cuGraphDestroy(graph);
  const release = (): void => void device.driver.raw.cuGraphExecDestroy(executable);
  device.releases.add(release);
  return {
    launch: () => void call.cuGraphLaunch(executable, device.stream),
    dispose() {
      if (device.releases.delete(release)) release();
    },
  };
}

/** Milliseconds that the GPU takes for what `enqueue` puts on the stream. Blocks. */
export function timeOnDevice(device: Device, enqueue: () => void): number {
  const { call } = device.driver;
  const events = [0, 0].map(() => (call.cuEventCreate(out64, 0), out64[0]!)) as [bigint, bigint];
  call.cuEventRecord(events[0], device.stream);
  enqueue();
  call.cuEventRecord(events[1], device.stream);
  call.cuEventSynchronize(events[1]);
  const milliseconds = new Float32Array(1);
  call.cuEventElapsedTime(milliseconds, events[0], events[1]);
  for (const event of events) call.cuEventDestroy_v2(event);
  return milliseconds[0]!;
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(2);
}
