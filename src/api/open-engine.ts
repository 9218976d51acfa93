import type { Engine, WeightSource } from "../backends/backend.ts";
import { createOnnxEngine } from "../backends/onnx/engine.ts";
import { referenceEngine } from "../backends/reference/engine.ts";
import { LorikeetError } from "../errors.ts";

/** Where and how programs run. */
export interface DeviceOptions {
  /** `auto` (default), `cpu`, `webgpu`, or `reference` (float64, slow: for checking). */
  readonly device?: string;
  /** Threads of one operator on the CPU; one for each physical core by default. */
  readonly threads?: number;
  /** `lean` gives memory back after each use, which costs time. */
  readonly memory?: "fast" | "lean";
}

/**
 * An engine over the frozen `weights`.
 * @throws LorikeetError `unknown-device` listing the devices there are
 */
export function openEngine(weights: WeightSource, options: DeviceOptions = {}): Engine {
  const { device = "auto", threads, memory } = options;
  const shared = { weights, ...(threads !== undefined && { threads }), ...(memory && { memory }) };
  if (device === "auto" || device === "cpu") return createOnnxEngine(shared);
  if (device === "webgpu") return createOnnxEngine({ ...shared, provider: "webgpu" });
  if (device === "reference") return referenceEngine(weights);
  throw new LorikeetError(
    "unknown-device",
    `Expected device to be auto, cpu, webgpu or reference, got ${device}`,
  );
}
