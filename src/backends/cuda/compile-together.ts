/** @file Compiles several sources at once, each in a thread of its own. */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";

/** One source for NVRTC. */
export interface CompileJob {
  readonly name: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** Compilers at work. */
export interface Compiling {
  /** Resolves, and never rejects, when every source was tried or the work was stopped. */
  readonly done: Promise<void>;
  /** Begins no other source. */
  readonly stop: () => void;
}

/** More threads than this are not worth the memory of a compiler in each. */
const MAX_THREADS = 32;

/**
 * Compiles `jobs`, at most one a core, and gives each code to `keep`. One that fails, for whatever reason, is left out:
 * who needs it compiles it and has the error. A single source, or a single core, is left to that too.
 */
export function compileTogether<Job extends CompileJob>(
  jobs: readonly Job[],
  keep: (job: Job, cubin: Uint8Array) => void,
  cores: number = availableParallelism(),
): Compiling {
  const queue = [...jobs];
  const threads = Math.min(jobs.length, cores, MAX_THREADS);
  const stop = (): void => void queue.splice(0);
  if (threads < 2) return { done: Promise.resolve(), stop };
  const all = Array.from({ length: threads }, () => work(queue, keep));
  return { done: Promise.all(all).then(() => undefined), stop };
}

/** One thread that takes from `queue` until that is empty. */
function work<Job extends CompileJob>(
  queue: Job[],
  keep: (job: Job, cubin: Uint8Array) => void,
): Promise<void> {
  const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
  const worker = new Worker(new URL(`./compile-worker${extension}`, import.meta.url));
  return new Promise((resolve) => {
    let job: Job | undefined;
    const next = (): void => {
      job = queue.shift();
      if (job) worker.postMessage({ name: job.name, source: job.source, options: job.options });
      else void worker.terminate();
    };
    worker.on("message", (cubin: Uint8Array | undefined) => {
      if (cubin && job) keep(job, cubin);
      next();
    });
    // such as a bundle without the worker's file
    worker.on("error", () => undefined);
    worker.on("exit", () => {
      resolve();
    });
    next();
  });
}
