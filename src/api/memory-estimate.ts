import type { WeightSource } from "../backends/backend.ts";
import type { DataWarning } from "../data/data-warnings.ts";
import { LorikeetError } from "../errors.ts";
import type { EngineDType } from "./open-engine.ts";
import type { DenoiseShape } from "../diffusion/pipeline-graphs.ts";
import type { Node } from "../ir/node.ts";
import { sizeOf } from "../tensor/shape.ts";
import {
  type StepShape,
  trainableParameters,
  trainingGraph,
  type TrainPlan,
} from "../train/plan.ts";
import { imageParameters, type ImagePlan, imageTrainingGraph } from "../train/image-plan.ts";
import { type StepValues, stepValues } from "./step-values.ts";

/** Bytes that a training step needs on the CPU. */
export interface MemoryEstimate {
  /** The frozen base, as it is computed with. */
  readonly weights: number;
  /** Trainable parameters, their gradients and both moments, f32. */
  readonly adapters: number;
  /** What is live at once while a step runs. */
  readonly activations: number;
  readonly total: number;
}

/** The frozen weights, and how they are kept. */
export interface FrozenBase {
  readonly source: Pick<WeightSource, "names" | "get">;
  readonly dtype: EngineDType;
}

/** Rows that a step computes at once, as messages call them. */
export interface StepBatch {
  readonly batch: number;
  /** Such as `512 tokens`. */
  readonly row: string;
  /** The option that makes rows smaller. */
  readonly option: string;
  /** Whether the user says that the run may start although it does not fit. */
  readonly mayExceed?: boolean;
}

const F32 = 4;
/** Node.js, ONNX Runtime, the tokenizer and compiled programs. */
const PROCESS = 200e6;
/** The programs and pixels of an autoencoder besides. */
const IMAGES = 100e6;
/** What ONNX Runtime's arena holds for what is live at once: 22 MB an image of picturebook-7m for 15.7. */
const ARENA = 1.4;
/** Bytes of an element of the frozen base by --base-dtype; NF4 has a scale for each block of 64. */
const WEIGHT_BYTES: Readonly<Record<EngineDType, number>> = {
  auto: F32,
  f32: F32,
  bf16: 2,
  f16: 2,
  fp8: 2,
  int8: 1,
  nf4: 0.56,
};
/** How many of the largest values exist at once while an op runs. */
const WORKING = 3;
/** Beyond this share of what is free the run is refused: no estimate is further above what was measured. */
const REFUSE = 1.1;
const WARN = 0.9;

/**
 * Memory of a step of `shape`, by the values of the graph that is run, beside weights and what trains (four copies).
 * Without checkpointing it is what is live at once. With it, less of a block's recomputed values is freed than could be:
 * what was measured lies halfway to all of them. Blocks are alike, so one and two are counted and the rest follows.
 * Measured for SmolLM2-135M 1×512, 4×256, both checkpointed, and Llama-3.2-1B's shape 1×512 checkpointed: 1.65, 2.06,
 * 1.17, 1.19 and 5.83 GB; estimated: 1.54, 2.03, 1.09, 1.26 and 5.95.
 */
export function estimateMemory(
  plan: TrainPlan,
  base: FrozenBase,
  shape: StepShape,
): MemoryEstimate {
  const key = "n_layer" in plan.config ? "n_layer" : "num_hidden_layers";
  const blocks = Number(plan.config[key] ?? 1);
  const [some, more] = [1, Math.min(2, blocks)].map((count) =>
    stepValues(trainingGraph(withBlocks(plan, key, count), shape)),
  ) as [StepValues, StepValues];
  const all = (value: keyof StepValues): number =>
    some[value] + (blocks - 1) * (more[value] - some[value]);
  const recomputed = more.recomputed - (blocks > 1 ? some.recomputed : 0);
  const held = all("kept") + recomputed + WORKING * some.largest;
  const peak = all("peak");
  const activations = Math.max(peak, (peak + held) / 2);
  return estimateOf(activations, trainableParameters(plan), base);
}

/** Memory of a step of `shape` on images, by what is live at once in the graph that is run. Its blocks are all unlike. */
export function estimateImageMemory(
  plan: ImagePlan,
  base: FrozenBase,
  shape: DenoiseShape,
): MemoryEstimate {
  const { peak } = stepValues(imageTrainingGraph(plan, shape));
  const estimate = estimateOf(ARENA * peak, imageParameters(plan), base);
  return { ...estimate, total: estimate.total + IMAGES };
}

function estimateOf(
  activations: number,
  parameters: readonly Node[],
  { source, dtype }: FrozenBase,
): MemoryEstimate {
  const trained = parameters.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const stored = source.names.reduce((sum, name) => sum + sizeOf(source.get(name).shape), 0);
  const [weights, adapters] = [WEIGHT_BYTES[dtype] * stored, 4 * F32 * trained];
  return { weights, adapters, activations, total: weights + adapters + activations + PROCESS };
}

function withBlocks(plan: TrainPlan, key: string, count: number): TrainPlan {
  const { layer_types: types, ...config } = plan.config;
  const kinds = Array.isArray(types) && { layer_types: types.slice(0, count) };
  return { ...plan, config: { ...config, ...kinds, [key]: count } };
}

/**
 * Compares an estimate with the `free` bytes: nothing when there is room, a warning when it is close.
 * @throws LorikeetError `out-of-memory` when it is clearly more than is free and may not be, with what to change
 */
export function checkMemory(
  estimate: MemoryEstimate,
  free: number,
  rows: StepBatch,
): DataWarning[] {
  const { weights, adapters, activations, total } = estimate;
  if (total <= WARN * free) return [];
  const parts = `weights ${gib(weights)}, adapter and optimizer ${gib(adapters)}, activations of ${rows.batch} × ${rows.row} ${gib(activations)}`;
  if (total <= REFUSE * free || rows.mayExceed)
    return [
      {
        code: "memory-tight",
        message: `training may need ${gib(total)} (${parts}); ${gib(free)} is free`,
      },
    ];
  throw new LorikeetError(
    "out-of-memory",
    `Expected a run that fits into ${gib(free)} of free memory, this one needs about ${gib(total)}: ${parts}`,
    { hint: `${remedy(estimate, free, rows)} --no-check-memory starts it all the same.` },
  );
}

function remedy(
  { activations, total }: MemoryEstimate,
  free: number,
  { batch, option }: StepBatch,
): string {
  const room = free - (total - activations);
  if (room < 0) return "Take a smaller model or --base-dtype, or a machine with more memory.";
  const fits = Math.floor((batch * room) / activations);
  const smaller =
    batch > 1
      ? `--per-device-train-batch-size ${Math.max(1, fits)} with --gradient-accumulation-steps, `
      : "";
  return `Use ${smaller}a smaller ${option}, --gradient-checkpointing, or a smaller --base-dtype.`;
}

function gib(bytes: number): string {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(0)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
