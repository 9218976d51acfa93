/** @file libcuda: devices, memory, modules, streams, graphs and events. */
import { LorikeetError } from "../../../errors.ts";
import { bind, type Bound, checked, type Library, openLibrary, readString } from "./library.ts";

const SIGNATURES = {
  cuInit: ["int", "uint"],
  cuDriverGetVersion: ["int", "ptr"],
  cuDeviceGetCount: ["int", "ptr"],
  cuDeviceGet: ["int", "ptr", "int"],
  cuDeviceGetName: ["int", "ptr", "int", "int"],
  cuDeviceGetAttribute: ["int", "ptr", "int", "int"],
  cuDeviceTotalMem_v2: ["int", "ptr", "int"],
  cuDevicePrimaryCtxRetain: ["int", "ptr", "int"],
  cuDevicePrimaryCtxRelease_v2: ["int", "int"],
  cuCtxSetCurrent: ["int", "uint64_t"],
  cuMemGetInfo_v2: ["int", "ptr", "ptr"],
  cuMemAlloc_v2: ["int", "ptr", "size_t"],
  cuMemFree_v2: ["int", "uint64_t"],
  cuMemHostAlloc: ["int", "ptr", "size_t", "uint"],
  cuMemFreeHost: ["int", "uint64_t"],
  cuMemcpyHtoD_v2: ["int", "uint64_t", "ptr", "size_t"],
  cuMemcpyDtoH_v2: ["int", "ptr", "uint64_t", "size_t"],
  cuMemcpyHtoDAsync_v2: ["int", "uint64_t", "uint64_t", "size_t", "uint64_t"],
  cuMemcpyDtoHAsync_v2: ["int", "uint64_t", "uint64_t", "size_t", "uint64_t"],
  cuMemcpyDtoDAsync_v2: ["int", "uint64_t", "uint64_t", "size_t", "uint64_t"],
  cuMemcpy2DAsync_v2: ["int", "ptr", "uint64_t"],
  cuMemsetD8Async: ["int", "uint64_t", "uint8_t", "size_t", "uint64_t"],
  cuModuleLoadData: ["int", "ptr", "ptr"],
  cuModuleUnload: ["int", "uint64_t"],
  cuModuleGetFunction: ["int", "ptr", "uint64_t", "str"],
  cuFuncSetAttribute: ["int", "uint64_t", "int", "int"],
  cuFuncGetAttribute: ["int", "ptr", "int", "uint64_t"],
  cuLaunchKernel: [
    "int",
    "uint64_t",
    "uint",
    "uint",
    "uint",
    "uint",
    "uint",
    "uint",
    "uint",
    "uint64_t",
    "ptr",
    "ptr",
  ],
  cuStreamCreate: ["int", "ptr", "uint"],
  cuStreamDestroy_v2: ["int", "uint64_t"],
  cuStreamSynchronize: ["int", "uint64_t"],
  cuStreamQuery: ["int", "uint64_t"],
  cuStreamBeginCapture_v2: ["int", "uint64_t", "int"],
  cuStreamEndCapture: ["int", "uint64_t", "ptr"],
  cuGraphInstantiateWithFlags: ["int", "ptr", "uint64_t", "uint64_t"],
  cuGraphLaunch: ["int", "uint64_t", "uint64_t"],
  cuGraphExecDestroy: ["int", "uint64_t"],
  cuGraphDestroy: ["int", "uint64_t"],
  cuEventCreate: ["int", "ptr", "uint"],
  cuEventDestroy_v2: ["int", "uint64_t"],
  cuEventRecord: ["int", "uint64_t", "uint64_t"],
  cuEventSynchronize: ["int", "uint64_t"],
  cuEventElapsedTime: ["int", "ptr", "uint64_t", "uint64_t"],
} as const;

/** libcuda. */
export interface Driver {
  readonly library: Library;
  /** Functions that throw on any status but success. */
  readonly call: Bound<typeof SIGNATURES>;
  /** The same functions, returning their status. */
  readonly raw: Bound<typeof SIGNATURES>;
}

/** CUresult values that callers tell apart. */
export const STATUS = { outOfMemory: 2, notReady: 600 } as const;

/** Out parameter of one 64-bit handle, one int or one float, used by one call at a time. */
export const out64: BigUint64Array = new BigUint64Array(2);
export const out32: Int32Array = new Int32Array(2);

let driver: Driver | undefined;

/**
 * The driver, opened and initialised once.
 * @throws LorikeetError `cuda-library` without libcuda, `cuda-driver` when it does not initialise
 */
export function openDriver(): Driver {
  if (driver) return driver;
  const library = openLibrary(
    "the NVIDIA driver",
    ["libcuda.so.1", "libcuda.so"],
    "Install the NVIDIA driver, or in a container start it with GPU access. `--device cpu` works without.",
  );
  const raw = bind(library, SIGNATURES);
  const describe = errorTexts(library);
  const call = checked(raw, (name, status) => {
    const text = describe(status);
    if (status === STATUS.outOfMemory)
      return new LorikeetError("cuda-memory", `${name}: the GPU is out of memory (${text})`, {
        hint: "Close other programs on this GPU, or use a smaller --per-device-train-batch-size, --checkpointing on or --base-dtype nf4.",
      });
    return new LorikeetError("cuda-driver", `${name} failed with status ${status}: ${text}`, {
      hint: hintOf(status),
    });
  });
  call.cuInit(0);
  driver = { library, raw, call };
  return driver;
}

/** Statuses that say that libraries are newer than the driver, or its parts of different versions. */
const MISMATCHED: readonly number[] = [36, 209, 218, 222, 803, 804];
/** Statuses after which the GPU does nothing more for this process: faults of memory, hangs, a lost device. */
const LOST: readonly number[] = [
  46, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999,
];

/** What to do about a status of the driver. */
export function hintOf(status: number): string {
  if (MISMATCHED.includes(status))
    return "The driver is older than these CUDA libraries: update it, or install libraries of its version. `lorikeet doctor` lists both.";
  if (LOST.includes(status))
    return "The GPU is lost to this process. Checkpoints are whole: start again with --resume; look into `nvidia-smi` and the system log if it happens again.";
  return "`lorikeet doctor` shows which GPUs, driver and libraries were found.";
}

function errorTexts(library: Library): (status: number) => string {
  const name = library.find("cuGetErrorName", "int", ["int", "ptr"]);
  const text = library.find("cuGetErrorString", "int", ["int", "ptr"]);
  const read = (f: typeof name, status: number): string =>
    f && f(status, out64) === 0 && out64[0] ? readString(out64[0]) : "";
  return (status) =>
    [read(name, status), read(text, status)].filter(Boolean).join(": ") || "unknown error";
}
