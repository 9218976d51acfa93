import { spawn } from "node:child_process";
import { loadavg } from "node:os";

/** One training run. */
export interface TrainJob {
  readonly model: string;
  /** Rank of the adapter on all linear layers but the head, alpha twice that; or every weight trains. */
  readonly rank: number | "full";
  readonly learningRate: number;
  readonly steps: number;
  readonly batchSize: number;
  readonly maxLength: number;
  readonly data: string;
  readonly evalData: string;
}

/** What it gave. */
export interface TrainResult {
  readonly rank: number | "full";
  readonly learningRate: number;
  readonly steps: number;
  readonly trainable: number;
  readonly total: number;
  /** Both moments of AdamW. */
  readonly optimizerBytes: number;
  readonly peakBytes: number;
  readonly stepSeconds: readonly number[];
  /** Before the first step and after the last. */
  readonly evalLosses: readonly number[];
  readonly trainLoss: number;
  readonly fileBytes: number;
}

/** What generating with an adapter costs. */
export interface InferenceResult {
  readonly rank: number;
  /** Tokens a second of each round, by what generates. */
  readonly tokensPerSecond: Readonly<Record<"base" | "merged" | "adapter", readonly number[]>>;
  /** Milliseconds to put the tensors of another adapter into a running engine. */
  readonly swapMs: readonly number[];
  /** Milliseconds to read the adapter's files. */
  readonly readMs: readonly number[];
  /** Largest difference of next-token logits: merged against adapter, relative to the largest logit. */
  readonly mergedDifference: number;
  readonly modelBytes: number;
}

/** Runs `script` in a process of its own and reads the JSON that it prints last. */
export async function inProcess<T>(script: string, job: unknown): Promise<T> {
  const file = new URL(script, import.meta.url).pathname;
  const child = spawn(
    process.execPath,
    ["--import", "./scripts/typescript.js", file, JSON.stringify(job)],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  if (code !== 0) throw new Error(`${script} ended with ${code}`);
  return JSON.parse(text.trim().split("\n").at(-1)!) as T;
}

/** The middle of `values`. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value below which the share `q` of `values` lies. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
}

/** Processes that wanted to run during the last minute. */
export function load(): number {
  return loadavg()[0]!;
}

/** All results for one model. */
export interface Report {
  readonly model: string;
  readonly data: string;
  readonly steps: number;
  readonly batchSize: number;
  readonly maxLength: number;
  readonly machine: string;
  /** Processes that wanted to run, after each measurement. */
  readonly loads: readonly number[];
  readonly training: readonly TrainResult[];
  readonly inference: readonly InferenceResult[];
}
