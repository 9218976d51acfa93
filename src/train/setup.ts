import type { AdamWStep, Engine, Tensors } from "../backends/backend.ts";
import type { Graph } from "../ir/graph.ts";
import type { Apply } from "./optimizer.ts";

/** One micro-batch: values of the step's inputs, all but `dropout_seed`. */
export type Batch = Tensors;

/** The micro-batches of one optimizer step; their loss weights add up to 1. */
export interface Window {
  readonly batches: readonly Batch[];
  /** Numbers of the batches in the window of all processes; absent: from 0 on. */
  readonly numbers?: readonly number[];
  /** Names of the rows in each batch of the window of all processes, for errors. */
  readonly rows?: readonly (readonly string[])[];
  /** Tokens read, without padding; of images: how many. */
  readonly tokens: number;
  /** Passes over the data at the end of this window. */
  readonly epoch: number;
  /** Where the data continues after this window, as JSON. */
  readonly cursor: unknown;
}

/** What a run needs to continue exactly where it stopped, besides the engine's tensors. */
export interface RunState {
  readonly step: number;
  readonly tokens: number;
  /** Passes over the data. */
  readonly epoch: number;
  readonly lossSum: number;
  readonly cursor: unknown;
  readonly best: { readonly step: number; readonly loss: number } | undefined;
  readonly evalsSinceBest: number;
}

/** State before the first step. */
export const freshState: RunState = {
  step: 0,
  tokens: 0,
  epoch: 0,
  lossSum: 0,
  cursor: undefined,
  best: undefined,
  evalsSinceBest: 0,
};

/** Everything the loop is told; it reads no files and no clock of its own. */
export interface TrainSetup {
  readonly engine: Engine;
  /** The graph for batches of the sizes that this one has. */
  readonly graphFor: (batch: Batch) => Graph;
  /** The same in less memory, for engines that have too little for the other. */
  readonly leanGraphFor?: (batch: Batch) => Graph;
  /** Windows from `state.cursor` on. */
  readonly windows: (cursor: unknown) => AsyncIterable<Window>;
  readonly optimizer: Omit<AdamWStep, "step" | "learningRate">;
  /** How gradients change parameters; AdamW where left out. */
  readonly apply?: Apply;
  readonly learningRateAt: (step: number) => number;
  readonly totalSteps: number;
  /** What windows count as `tokens`, where that is not tokens. */
  readonly unit?: "images";
  readonly seed: number;
  readonly state: RunState;
  /** Mean loss over the evaluation data. */
  readonly evaluate?: () => Promise<number>;
  /** Evaluate every so many steps, and at the end. */
  readonly evalSteps: number;
  /** Stop after so many evaluations without a new best; 0: never. */
  readonly patience: number;
  /** Save every so many steps; 0: only at the end. */
  readonly saveSteps: number;
  /** Keeps a checkpoint (`best`: also as the best one so far) and returns where it is. */
  readonly save: (state: RunState, reason: "step" | "best" | "end") => Promise<string>;
  readonly signal?: AbortSignal;
  readonly now: () => number;
  readonly memoryBytes: () => number;
}
