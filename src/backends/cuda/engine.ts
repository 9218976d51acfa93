/** @file The engine of NVIDIA GPUs: plans graphs into CUDA programs, keeps weights and trainable state on the device. */
import type { Graph } from "../../ir/graph.ts";
import type { Engine, WeightSource } from "../backend.ts";
import { chooseAttention } from "./attention-choice.ts";
import { cacheStore } from "./cache-store.ts";
import { openCommunicator, type RankPlace } from "./communicator.ts";
import { allocateDevice, type Device, openDevice, freeDevice } from "./device.ts";
import { gemmPlanner } from "./gemm.ts";
import { fillZero } from "./memory.ts";
import { loadModule } from "./kernels.ts";
import { lossScale } from "./loss-scale.ts";
import type { Precision } from "./plan/graph.ts";
import { STORAGE_BYTES } from "./plan/value.ts";
import { SKINNY } from "./plan/skinny.ts";
import type { AttentionChoice } from "./plan/attention-units.ts";
import { type Arena, compileProgram, type CudaProgram } from "./program.ts";
import type { Quantization } from "./quantize.ts";
import { trainableState } from "./state.ts";
import { weightStore } from "./weights.ts";

/** How a CUDA engine computes. */
export interface CudaOptions {
  /** Which GPU, in the driver's order; default 0. */
  readonly index?: number;
  /** Storage of activations and frozen weights; default bf16. Adapters, their optimizer state and sums are f32. */
  readonly precision?: Precision;
  /** Keep the frozen linear layers in 4 or 8 bits; they are decoded to `precision` before each product. */
  readonly quantization?: Quantization;
  /** The processes that train together; their gradients are added up before each update. */
  readonly ranks?: RankPlace;
  /** Only kernels that give the same bits at every run; attention is slower. Default false. */
  readonly deterministic?: boolean;
}

/** An engine with what can be measured about it. */
export interface CudaEngine extends Engine {
  readonly device: Device;
  compile(graph: Graph): Promise<CudaProgram>;
  /** Device memory in use by this engine, in bytes. */
  memory(): { readonly weights: number; readonly arena: number };
}

/**
 * An engine on one GPU.
 * @throws LorikeetError `cuda-library`, `cuda-driver` or `cuda-device` when there is no usable GPU or library
 */
export function cudaEngine(source: WeightSource, options: CudaOptions = {}): CudaEngine {
  const { index = 0, precision = "bf16", deterministic = false } = options;
  const device = openDevice(index);
  const ranks = options.ranks && openCommunicator(device, options.ranks);
  const state = trainableState(device, precision, ranks);
  const weights = weightStore(device, source, options.quantization);
  const skinny = allocateDevice(device, SKINNY.bytes, "partial sums");
  fillZero(device, skinny, SKINNY.bytes);
  const parts = {
    skinny,
    device,
    state,
    weights,
    gemms: gemmPlanner(device),
    caches: cacheStore(device),
  };
  const arena = growingArena(device, precision);
  const attention: AttentionChoice = (spec, isSegmented) =>
    chooseAttention(device, spec, isSegmented, deterministic);
  const scale = precision === "f16" ? lossScale() : undefined;
  return {
    name: "cuda",
    device,
    get lossScale() {
      return scale?.value ?? 1;
    },
    compile: (graph) => compileProgram(parts, arena, graph, { precision, attention }),
    memory: () => ({ weights: weights.bytes, arena: arena.bytes }),
    get(name) {
      device.expectOpen();
      return Promise.resolve(state.read(name));
    },
    set(name, value) {
      device.expectOpen();
      state.write(name, value);
      return Promise.resolve();
    },
    async applyGradients(step) {
      device.expectOpen();
      const result = await state.update(step);
      scale?.update(result.gradNorm);
      return result;
    },
    ...(ranks && {
      sum: (values: readonly number[]) => ranks.sum(values),
      sumGradients: () => state.sumGradients(),
    }),
    clearGradients() {
      device.expectOpen();
      state.clearGradients();
      return Promise.resolve();
    },
    dispose() {
      if (device.isOpen) ranks?.dispose();
      device.dispose();
      return Promise.resolve();
    },
  };
}

function growingArena(device: Device, precision: Precision): Arena {
  let [address, size] = [0, 0];
  const fill = loadModule(device, ["rows"], { T: precision, S: "f32" }).kernel("fill_random", "pl");
  return {
    get address() {
      return address;
    },
    get bytes() {
      return size;
    },
    reserve(bytes) {
      const wanted = Math.max(bytes, 1 << 20);
      if (wanted <= size) return;
      device.driver.call.cuStreamSynchronize(device.stream);
      if (address !== 0) freeDevice(device, address);
      [address, size] = [0, 0];
      address = allocateDevice(device, wanted, "activations of a program");
      size = wanted;
      // algorithms are timed on this memory
      fill.launch([1024], 256, [address, Math.floor(size / STORAGE_BYTES[precision])]);
    },
  };
}
