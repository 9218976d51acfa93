import type { Engine, WeightSource } from "../backends/backend.ts";
import type { CudaOptions } from "../backends/cuda/engine.ts";
import { createOnnxEngine, type Memory } from "../backends/onnx/engine.ts";
import type { BaseDType } from "../backends/onnx/storage.ts";
import { referenceEngine } from "../backends/reference/engine.ts";
import { LorikeetError } from "../errors.ts";
import type { LaunchedRank } from "../host/ranks.ts";

/** Of the self-test on WebGPU: adapters that compute well stay below 1e-6, coarse rotary angles cost 1.5e-4. */
const WEBGPU_TOLERANCE = 1e-4;

/** How the frozen base is kept in memory; `f16` and `fp8` are the CUDA engine's alone. */
export type EngineDType = BaseDType | "f16" | "fp8";

/** Where and how programs run. */
export interface DeviceOptions {
  /**
   * `auto` (default): a usable NVIDIA GPU, else the CPU; `cpu`: ONNX Runtime; `webgpu`; `cuda` or `cuda:N`;
   * `reference`: float64, slow, for checking.
   */
  readonly device?: string;
  /** Threads of one operator on the CPU; one for each physical core by default. */
  readonly threads?: number;
  /** How the frozen base is kept in memory: `auto`, `f32`, `bf16`, `f16`, `fp8`, `int8` or `nf4`. */
  readonly baseDtype?: EngineDType;
  /** What the CPU's memory is spent on: `fast` (default), `lean` or `packed`. */
  readonly memory?: Memory;
  /** The processes that train together, each on a GPU of its own. */
  readonly ranks?: LaunchedRank;
  /** Is told what `auto` chose, where there was something to choose. */
  readonly onNote?: (message: string) => void;
}

/**
 * An engine over the frozen `weights`.
 * @throws LorikeetError `unknown-device` listing the devices there are; `cuda-library`, `cuda-driver` or `cuda-device`
 * where a GPU was asked for and is not usable; `engine-self-test` where it computes something else than the reference;
 * `unsupported-base-dtype` where a device does not have it
 */
export async function openEngine(
  weights: WeightSource,
  options: DeviceOptions = {},
): Promise<Engine> {
  const device = await chosenDevice(options);
  const gpu = /^cuda(?::(\d+))?$/.exec(device);
  if (gpu) {
    // loaded only here, as it opens the driver's library
    const { cudaEngine } = await import("../backends/cuda/engine.ts");
    const { gpuOfProcess } = await import("../backends/cuda/device.ts");
    const index = gpu[1] ?? gpuOfProcess(options.ranks?.local ?? 0);
    return cudaEngine(weights, cudaOptions(options, Number(index)));
  }
  if (options.ranks)
    throw new LorikeetError(
      "ranks",
      `Expected a GPU for each of ${options.ranks.size} processes, got device ${device}`,
      { hint: "Start one process, or use --device cuda on a machine with as many GPUs." },
    );
  const { threads, memory } = options;
  const shared = {
    ...{ weights, baseDtype: onnxDtype(options, device) },
    ...(threads !== undefined && { threads }),
    ...(memory && { memory }),
  };
  if (device === "cpu") return createOnnxEngine(shared);
  if (device === "webgpu") {
    const provider = "webgpu";
    const { selfTest } = await import("./self-test.ts");
    await selfTest((tiny) => createOnnxEngine({ weights: tiny, provider }), WEBGPU_TOLERANCE);
    return createOnnxEngine({ ...shared, provider });
  }
  if (device === "reference") return referenceEngine(weights);
  throw new LorikeetError(
    "unknown-device",
    `Expected device to be auto, cpu, webgpu, cuda, cuda:N or reference, got ${device}`,
    { hint: "`lorikeet doctor` shows what this machine has." },
  );
}

/** The device that `auto` stands for, or the one that is named. */
async function chosenDevice({
  device = "auto",
  baseDtype,
  ranks,
  onNote,
}: DeviceOptions): Promise<string> {
  if (device !== "auto") return device;
  const { usableGpu } = await import("./usable-gpu.ts");
  const { index, note } = await usableGpu(baseDtype, ranks?.local);
  if (note !== undefined) onNote?.(note);
  return index === undefined ? "cpu" : `cuda:${index}`;
}

/** Settings of a CUDA engine that keeps its base as `baseDtype` says. */
export function cudaOptions({ baseDtype = "auto", ranks }: DeviceOptions, index = 0): CudaOptions {
  const shared = { index, ...(ranks && { ranks }) };
  switch (baseDtype) {
    case "nf4":
    case "int8":
    case "fp8":
      return { ...shared, quantization: baseDtype };
    case "auto":
      return shared;
    default:
      return { ...shared, precision: baseDtype };
  }
}

function onnxDtype({ baseDtype = "auto" }: DeviceOptions, device: string): BaseDType {
  if (baseDtype !== "f16" && baseDtype !== "fp8") return baseDtype;
  throw new LorikeetError(
    "unsupported-base-dtype",
    `Expected a GPU for base dtype ${baseDtype}, got ${device}`,
    {
      hint: "Use --device cuda, or --base-dtype bf16, int8 or nf4.",
    },
  );
}
