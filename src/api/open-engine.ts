import type { Engine, WeightSource } from "../backends/backend.ts";
import { createOnnxEngine } from "../backends/onnx/engine.ts";
import type { BaseDType } from "../backends/onnx/storage.ts";
import { referenceEngine } from "../backends/reference/engine.ts";
import { LorikeetError } from "../errors.ts";

/** Where and how programs run. */
export interface DeviceOptions {
  /** `auto` (default) and `cpu`: ONNX Runtime; `webgpu`; `cuda` or `cuda:N`; `reference`: float64, slow, for checking. */
  readonly device?: string;
  /** Threads of one operator on the CPU; one for each physical core by default. */
  readonly threads?: number;
  /** How the frozen base is kept in memory: `auto`, `f32`, `bf16`, `int8` or `nf4`. */
  readonly baseDtype?: BaseDType;
  /** `lean` gives memory back after each use, which costs time. */
  readonly memory?: "fast" | "lean";
}

/**
 * An engine over the frozen `weights`.
 * @throws LorikeetError `unknown-device` listing the devices there are; `cuda-library`, `cuda-driver` or `cuda-device`
 * where a GPU was asked for and is not usable; `engine-self-test` where it computes something else than the reference
 */
export async function openEngine(
  weights: WeightSource,
  options: DeviceOptions = {},
): Promise<Engine> {
  const { device = "auto", threads, memory, baseDtype = "auto" } = options;
  const shared = {
    ...{ weights, baseDtype },
    ...(threads !== undefined && { threads }),
    ...(memory && { memory }),
  };
  if (device === "auto" || device === "cpu") return createOnnxEngine(shared);
  if (device === "webgpu") {
    const provider = "webgpu";
    const { selfTest } = await import("./self-test.ts");
    await selfTest((tiny) => createOnnxEngine({ weights: tiny, provider }));
    return createOnnxEngine({ ...shared, provider });
  }
  if (device === "reference") return referenceEngine(weights);
  const gpu = /^cuda(?::(\d+))?$/.exec(device);
  if (gpu) {
    // loaded only here, as it opens the driver's library
    const { cudaEngine } = await import("../backends/cuda/engine.ts");
    return cudaEngine(weights, { index: Number(gpu[1] ?? 0) });
  }
  throw new LorikeetError(
    "unknown-device",
    `Expected device to be auto, cpu, webgpu, cuda, cuda:N or reference, got ${device}`,
  );
}
