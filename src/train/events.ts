/** One optimizer step. */
export interface StepEvent {
  readonly type: "step";
  /** Number of this optimizer step, from 1. */
  readonly step: number;
  readonly totalSteps: number;
  /** Passes over the data so far; 1.5 is the middle of the second. */
  readonly epoch: number;
  /** Over the whole accumulation window: mean cross-entropy of the supervised tokens in nats; of images, weighted squared error. */
  readonly loss: number;
  /** The rate this step was made with. */
  readonly learningRate: number;
  /** Global L2 norm of the gradients before clipping. */
  readonly gradNorm: number;
  /** Tokens (or images) read since the run began, padding left out. */
  readonly tokens: number;
  readonly tokensPerSecond: number;
  /** Resident memory of the process, in bytes. */
  readonly memoryBytes: number;
  /** What `tokens` and `tokensPerSecond` count; absent: tokens. */
  readonly unit?: "images";
}

/** One pass over the evaluation data. */
export interface EvalEvent {
  readonly type: "eval";
  /** Optimizer steps made before it; 0 is the untouched base. */
  readonly step: number;
  readonly loss: number;
  /** e^loss, of text. */
  readonly perplexity?: number;
  /** Whether no earlier evaluation of this run was lower. */
  readonly best: boolean;
}

/** What the base and the adapted model say to one prompt, after training. */
export interface SampleEvent {
  readonly type: "sample";
  readonly prompt: string;
  readonly base: string;
  readonly adapted: string;
}

/** An image that the model made from one of the sample prompts. */
export interface ImageEvent {
  readonly type: "image";
  /** Optimizer steps made before it; 0 is the untouched base. */
  readonly step: number;
  readonly prompt: string;
  /** The PNG file. */
  readonly path: string;
}

/** A saved state that a run can resume from. */
export interface CheckpointEvent {
  readonly type: "checkpoint";
  readonly step: number;
  readonly path: string;
}

/** Something the user should know that does not stop the run. */
export interface WarningEvent {
  readonly type: "warning";
  /** Documented in docs/errors.md. */
  readonly code: string;
  readonly message: string;
}

/** Why a run is over. */
export type EndReason = "completed" | "early-stop" | "interrupted";

/** The last event of a run. */
export interface EndEvent {
  readonly type: "end";
  readonly reason: EndReason;
  readonly step: number;
  readonly epoch: number;
  /** Tokens (or images) read. */
  readonly tokens: number;
  readonly seconds: number;
  /** Mean training loss of the run, or NaN when no step was made. */
  readonly loss: number;
  /** Lowest evaluation loss and the step it was reached at; absent without evaluation data. */
  readonly best?: { readonly step: number; readonly loss: number };
}

/** What a run tells while it goes; commands print it, run files record it. */
export type TrainEvent =
  StepEvent | EvalEvent | SampleEvent | ImageEvent | CheckpointEvent | WarningEvent | EndEvent;
