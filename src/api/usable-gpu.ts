import { LorikeetError } from "../errors.ts";
import type { EngineDType } from "./open-engine.ts";
import { selfTest } from "./self-test.ts";

/** What was found about GPUs. */
export interface GpuChoice {
  /** The GPU to use; undefined: none is usable. */
  readonly index?: number;
  /** Which GPU is used, or why one that seems to be there is not. */
  readonly note?: string;
}

/** Relative differences that a correct engine stays far below: f32, and 16 bits over two layers. */
const TOLERANCE = { f32: 1e-3, half: 8e-2 } as const;

const choices = new Map<string, Promise<GpuChoice>>();

/**
 * The GPU of the machine's process number `local`, if a tiny model trains on it as on the reference engine; looked for
 * once a process. The libraries' handles belong to the GPU that they are opened on.
 */
export function usableGpu(baseDtype: EngineDType = "auto", local = 0): Promise<GpuChoice> {
  const precision = baseDtype === "f32" || baseDtype === "f16" ? baseDtype : "bf16";
  const known = choices.get(precision) ?? choose(precision, local);
  choices.set(precision, known);
  return known;
}

async function choose(precision: "f32" | "bf16" | "f16", local: number): Promise<GpuChoice> {
  try {
    const { cudaEngine } = await import("../backends/cuda/engine.ts");
    const { deviceInfo, gpuOfProcess } = await import("../backends/cuda/device.ts");
    const { index, name } = deviceInfo(gpuOfProcess(local));
    const tolerance = precision === "f32" ? TOLERANCE.f32 : TOLERANCE.half;
    await selfTest((weights) => cudaEngine(weights, { index, precision }), tolerance);
    return { index, note: `device: cuda:${index}, ${name} (self-test passed)` };
  } catch (error) {
    if (!(error instanceof LorikeetError)) throw error;
    // no driver: an ordinary machine without such a GPU
    if (error.code === "cuda-library" && error.message.includes("NVIDIA driver")) return {};
    return { note: `device: cpu, as the GPU is not usable: ${error.message}` };
  }
}
