import type { Graph } from "../ir/graph.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Values by name. */
export type Tensors = Readonly<Record<string, Tensor>>;

/** A compiled graph. */
export interface Program {
  /**
   * Runs the graph once on `feeds` (a tensor for each `input` leaf) and returns its outputs.
   * When the graph has gradients they are added to the engine's gradient buffers instead of being returned.
   */
  run(feeds: Tensors): Promise<Record<string, Tensor>>;
  /** Releases what only this program holds. */
  dispose(): Promise<void>;
}

/** A compiled graph that runs twice at the same time. */
export interface PairedProgram {
  /** Runs the graph on both feeds and returns the outputs of each; the gradients of both are added. */
  run(feeds: Pair<Tensors>): Promise<Pair<Record<string, Tensor>>>;
  /** Releases what only this program holds. */
  dispose(): Promise<void>;
}
export type Pair<T> = readonly [T, T];

/** One AdamW update of the trainable parameters, after clipping the gradients by their global norm. */
export interface AdamWStep {
  /** Number of this update, from 1 (bias correction). */
  readonly step: number;
  readonly learningRate: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  /** Decoupled: p ← p − lr·decay·p. https://arxiv.org/abs/1711.05101 */
  readonly weightDecay: number;
  /** Largest global L2 norm of the gradients; larger ones are scaled down to it. Infinity: no clipping. */
  readonly maxGradNorm: number;
  /** Factor that the loss, and so every gradient, was computed with; it is divided out. Default 1. */
  readonly lossScale?: number;
  /** Factor on the learning rate of single parameters (LoRA+); 1 where absent. 0 freezes the parameter. */
  readonly learningRateScales?: Readonly<Record<string, number>>;
}

/**
 * Runs graphs and owns what lives between runs: trainable parameters, their gradients and optimizer state.
 * State is named `<parameter>`, `<parameter>.grad`, `<parameter>.exp_avg` and `<parameter>.exp_avg_sq`; all f32.
 */
export interface Engine {
  readonly name: string;
  /**
   * Factor that the loss should be computed with (by way of its weights) and `applyGradients` be told of, so that small
   * gradients survive in 16 bits; the engine adapts it. Absent: 1.
   */
  readonly lossScale?: number;
  /** @throws LorikeetError `unsupported-op` when an op can be neither lowered nor decomposed */
  compile(graph: Graph): Promise<Program>;
  /**
   * As `compile`, for two runs at the same time on half of the processor each: both halves of a batch take less time so
   * than the whole. Absent, or undefined for `graph`: nothing would be gained.
   */
  compilePaired?(graph: Graph): Promise<PairedProgram | undefined>;
  /** Current value of a state tensor. Moments and gradients that were never written are zeros. */
  get(name: string): Promise<Tensor>;
  /** Sets a state tensor; a new name must be a parameter of a graph before it is run. */
  set(name: string, value: Tensor): Promise<void>;
  /**
   * Clips, applies AdamW to every parameter that has a gradient, and clears the gradients. Gradients whose norm is no
   * finite number change nothing.
   */
  applyGradients(update: AdamWStep): Promise<{ gradNorm: number }>;
  /** Sums of a few numbers over all processes that train together; each must call it. Absent: this one is alone. */
  sum?(values: readonly number[]): Promise<number[]>;
  /** Adds the gradients up over these processes before `applyGradients` does: for what reads them in between. */
  sumGradients?(): Promise<void>;
  /** Drops accumulated gradients without using them. */
  clearGradients(): Promise<void>;
  /** Releases all memory, threads and files. */
  dispose(): Promise<void>;
}

/**
 * Where a frozen weight's bytes are: already in memory, a range of a file that an engine may map,
 * or computed by `WeightSource.read` (dequantized, permuted), which every kind may be read with.
 */
export type WeightBytes =
  | { readonly kind: "memory"; readonly tensor: Tensor }
  | { readonly kind: "computed" }
  | {
      readonly kind: "file";
      readonly path: string;
      readonly offset: number;
      readonly length: number;
    };

/** A frozen weight: its stored dtype and shape, and its bytes. */
export interface Weight {
  readonly dtype: Tensor["dtype"];
  readonly shape: Tensor["shape"];
  readonly bytes: WeightBytes;
}

/** Frozen weights by checkpoint name. */
export interface WeightSource {
  readonly names: readonly string[];
  /** @throws LorikeetError `missing-weight` when there is none of that name */
  get(name: string): Weight;
  /** The weight's values in memory, in its stored dtype. */
  read(name: string): Promise<Tensor>;
}
