import type { WeightSource } from "../backends/backend.ts";
import { hasLowering } from "../backends/onnx/has-lowering.ts";
import { LorikeetError } from "../errors.ts";
import type { EngineDType } from "./open-engine.ts";
import { rootsOf, topological, withRoots } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { cse } from "../passes/cse.ts";
import { expand } from "../passes/expand.ts";
import { dropMarks, fold } from "../passes/fold.ts";
import { rematerialize } from "../passes/rematerialize.ts";
import { sizeOf } from "../tensor/shape.ts";
import {
  type StepShape,
  trainableParameters,
  trainingGraph,
  type TrainPlan,
} from "../train/plan.ts";

/** Bytes that a training step needs on the CPU. */
export interface MemoryEstimate {
  /** The frozen base, as it is computed with. */
  readonly weights: number;
  /** Trainable parameters, their gradients and both moments, f32. */
  readonly adapters: number;
  /** What the forward pass keeps for the backward pass, and the working memory of one block. */
  readonly activations: number;
  readonly total: number;
}

const F32 = 4;
/** Node.js, ONNX Runtime, the tokenizer and compiled programs. */
const PROCESS = 200e6;
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
/** Beyond this share of what is free the run is refused; an estimate may be off, and some memory can be swapped. */
const REFUSE = 1.5;
const WARN = 0.9;

/**
 * Memory of a step of `shape`: forward values that the backward pass reads, counted in the graph that is run, beside
 * weights and what trains (four copies). With checkpointing one block's recomputed values count. Blocks are
 * alike, so one and two of them are counted and the rest follows.
 */
export function estimateMemory(
  plan: TrainPlan,
  {
    source,
    dtype,
  }: { source: Pick<WeightSource, "names" | "get">; dtype: keyof typeof WEIGHT_BYTES },
  shape: StepShape,
): MemoryEstimate {
  const key = "n_layer" in plan.config ? "n_layer" : "num_hidden_layers";
  const blocks = Number(plan.config[key] ?? 1);
  const [one, two] = [1, 2].map((count) => stepValues(withBlocks(plan, key, count), shape));
  const kept = one!.kept + (blocks - 1) * (two!.kept - one!.kept);
  const activations = kept + one!.recomputed + WORKING * one!.largest;
  const trained = trainableParameters(plan).reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const stored = source.names.reduce((sum, name) => sum + sizeOf(source.get(name).shape), 0);
  const [base, adapters] = [WEIGHT_BYTES[dtype] * stored, 4 * F32 * trained];
  return { weights: base, adapters, activations, total: base + adapters + activations + PROCESS };
}

function withBlocks(plan: TrainPlan, key: string, count: number): TrainPlan {
  const { layer_types: types, ...config } = plan.config;
  const kinds = Array.isArray(types) && { layer_types: types.slice(0, count) };
  return { ...plan, config: { ...config, ...kinds, [key]: count } };
}

/** Bytes of values of a step: those kept for the backward pass, those recomputed, the largest one. */
function stepValues(
  plan: TrainPlan,
  shape: StepShape,
): { kept: number; recomputed: number; largest: number } {
  const graph = trainingGraph(plan, shape);
  const lowered = cse(fold(dropMarks(expand(rootsOf(graph), (node) => hasLowering(node, "cpu")))));
  const { outputs, gradients } = withRoots(graph, lowered);
  const results = rematerialize(Object.values(outputs), Object.values(gradients));
  const forward = new Set(topological(Object.values(outputs)));
  const backward = topological(results).filter((node) => !forward.has(node));
  const read = new Set(backward.flatMap((node) => node.inputs));
  return {
    kept: bytesOf([...read].filter((node) => forward.has(node))),
    recomputed: bytesOf(backward.filter((node) => node.phase === "recompute")),
    largest: Math.max(0, ...[...forward, ...backward].filter(isValue).map(nodeBytes)),
  };
}

/**
 * Compares an estimate with the `free` bytes: undefined when there is room, a warning when it is close.
 * @throws LorikeetError `out-of-memory` when there is no hope, with what to change
 */
export function checkMemory(
  estimate: MemoryEstimate,
  free: number,
  shape: StepShape,
): { code: string; message: string } | undefined {
  const { weights, adapters, activations, total } = estimate;
  if (total <= WARN * free) return undefined;
  const parts = `weights ${gib(weights)}, adapter and optimizer ${gib(adapters)}, activations of ${shape.batch} × ${shape.length} tokens ${gib(activations)}`;
  if (total <= REFUSE * free)
    return {
      code: "memory-tight",
      message: `training may need ${gib(total)} (${parts}); ${gib(free)} is free`,
    };
  throw new LorikeetError(
    "out-of-memory",
    `Expected a run that fits into ${gib(free)} of free memory, this one needs about ${gib(total)}: ${parts}`,
    { hint: remedy(estimate, free, shape) },
  );
}

function remedy({ weights, activations }: MemoryEstimate, free: number, shape: StepShape): string {
  if (weights > free) return "Take a smaller model, or a machine with more memory.";
  const fits = Math.floor((shape.batch * (free - weights)) / activations);
  const batch =
    shape.batch > 1
      ? `--per-device-train-batch-size ${Math.max(1, fits)} with --gradient-accumulation-steps, `
      : "";
  return `Use ${batch}a smaller --max-length, --gradient-checkpointing, or a smaller --base-dtype.`;
}

function bytesOf(nodes: readonly Node[]): number {
  return nodes.filter(isValue).reduce((sum, node) => sum + nodeBytes(node), 0);
}

/** Leaves are counted apart, and a reshape is a view. */
function isValue(node: Node): boolean {
  return node.inputs.length > 0 && node.op.name !== "reshape";
}

function nodeBytes(node: Node): number {
  return sizeOf(node.shape) * (node.dtype === "i64" ? 8 : F32);
}

function gib(bytes: number): string {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(0)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
