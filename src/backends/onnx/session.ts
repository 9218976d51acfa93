/** @file What the engine needs of an ONNX Runtime binding; one file per binding implements it. */
import type { Tensor } from "../../tensor/tensor.ts";

/** How a session is made. */
export interface SessionOptions {
  /** Execution provider: `cpu` or `webgpu` in Node, `wasm` or `webgpu` in a browser. */
  readonly provider: string;
  /** Threads of one operator; 0: one for each physical core. */
  readonly threads: number;
  /** Folder that locations of external weights are relative to. */
  readonly weightsFolder: string;
  /** Keep freed memory for the next run: faster, and the peak stays allocated. */
  readonly keepsMemory: boolean;
  /** Copy weights into the layout of the kernels: faster runs, a longer start, a copy for each program. */
  readonly packsWeights?: boolean;
  /** Write a profile to files that begin so when the session is released. */
  readonly profilePrefix?: string;
}

/** A model that is ready to run. */
export interface Session {
  /** Runs once; returns the named outputs. */
  run(
    feeds: Readonly<Record<string, Tensor>>,
    outputs: readonly string[],
  ): Promise<Record<string, Tensor>>;
  /** Frees all memory of the session. */
  release(): Promise<void>;
}

/** Makes a session from the bytes of an ONNX file. */
export type CreateSession = (model: Uint8Array, options: SessionOptions) => Promise<Session>;
