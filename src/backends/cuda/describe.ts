import { LorikeetError } from "../../errors.ts";
import { type AttentionTest, testCudnn } from "./attention-choice.ts";
import { deviceInfo, type DeviceInfo, openDevice } from "./device.ts";
import { openCublasLt } from "./ffi/cublaslt.ts";
import { openCudnn } from "./ffi/cudnn.ts";
import { openDriver, out32 } from "./ffi/driver.ts";
import { openNccl } from "./ffi/nccl.ts";
import { openCompiler } from "./ffi/nvrtc.ts";

/** One library: where it was found, or why not. */
export interface LibraryFinding {
  readonly name: "driver" | "nvrtc" | "cublasLt" | "cudnn" | "nccl";
  readonly path?: string;
  readonly version?: string;
  readonly problem?: string;
  readonly hint?: string;
}

/** What a machine has for the CUDA engine. */
export interface CudaDescription {
  /** The engine can run: a GPU, the driver, NVRTC and cuBLASLt. cuDNN makes attention faster, NCCL is for several GPUs. */
  readonly usable: boolean;
  readonly libraries: readonly LibraryFinding[];
  /** GPUs with the bytes that are free on each. */
  readonly devices: readonly (DeviceInfo & { readonly freeBytes: number })[];
  /** Result of cuDNN's numerical test on the first GPU. */
  readonly attention?: AttentionTest;
}

/** Looks for GPUs and libraries. Never throws: what is missing is in the description. */
export function describeCuda(): CudaDescription {
  const libraries = [
    look("driver", () => ({ path: openDriver().library.path, version: driverVersion() })),
    look("nvrtc", () => openCompiler()),
    look("cublasLt", () => ({
      path: openCublasLt().library.path,
      version: openCublasLt().version,
    })),
    look("cudnn", () => ({
      path: openCudnn().library.path,
      version: cudnnVersion(openCudnn().version),
    })),
    look("nccl", () => ({ path: openNccl().library.path, version: openNccl().version })),
  ];
  const isFound = (name: LibraryFinding["name"]): boolean =>
    libraries.some((each) => each.name === name && each.problem === undefined);
  const devices = isFound("driver") ? attempt(describeDevices, []) : [];
  const isSupported = devices.some(({ capability }) => capability[0] >= 8);
  const usable = isSupported && isFound("nvrtc") && isFound("cublasLt");
  const attention = usable && isFound("cudnn") ? attempt(testAttention, undefined) : undefined;
  return { usable, libraries, devices, ...(attention && { attention }) };
}

function look(
  name: LibraryFinding["name"],
  open: () => { readonly path: string; readonly version: string },
): LibraryFinding {
  try {
    const { path, version } = open();
    return { name, path, version };
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    const hint = error instanceof LorikeetError ? error.hint : undefined;
    return { name, problem, ...(hint !== undefined && { hint }) };
  }
}

function attempt<T>(f: () => T, otherwise: T): T {
  try {
    return f();
  } catch {
    return otherwise;
  }
}

function describeDevices(): CudaDescription["devices"] {
  openDriver().call.cuDeviceGetCount(out32);
  return Array.from({ length: out32[0]! }, (_, index) => {
    const info = deviceInfo(index);
    if (info.capability[0] < 8) return { ...info, freeBytes: 0 };
    const device = openDevice(info.index);
    const freeBytes = device.free();
    device.dispose();
    return { ...info, freeBytes };
  });
}

function testAttention(): AttentionTest {
  const device = openDevice(0);
  const sizes = { B: 1, T: 128, S: 128, H: 2, Hk: 1, D: 64, window: 0, scale: 0.125 };
  const test = testCudnn(device, { ...sizes, causal: true, dtype: "bf16" });
  device.dispose();
  return test;
}

function driverVersion(): string {
  openDriver().call.cuDriverGetVersion(out32);
  const version = out32[0]!;
  return `${Math.floor(version / 1000)}.${Math.floor(version / 10) % 100}`;
}

function cudnnVersion(version: number): string {
  return `${Math.floor(version / 10000)}.${Math.floor(version / 100) % 100}.${version % 100}`;
}
