import { Worker } from "node:worker_threads";
import { LorikeetError } from "../../errors.ts";
import {
  BUSY,
  CLOSING,
  fromPlainError,
  type Request,
  type Response,
  type ResponseMessage,
} from "./protocol.ts";

/** Milliseconds that the end of the process waits for a request that is being answered. */
const LONGEST_WAIT = 30_000;

interface Pending {
  readonly resolve: (response: Response) => void;
  readonly reject: (error: LorikeetError) => void;
}

/** Of each thread: whether it is busy with a request, and whether it may begin another. */
const gates = new Set<Int32Array>();

// ONNX Runtime aborts the whole process where its thread is stopped in the middle of a request
process.on("exit", () => {
  for (const gate of gates) {
    Atomics.store(gate, CLOSING, 1);
    Atomics.wait(gate, BUSY, 1, LONGEST_WAIT);
  }
});

/** Sends requests to the hosting thread. The thread keeps the process alive only while it works. */
export class WorkerClient {
  private readonly worker: Worker;
  private readonly pending = new Map<number, Pending>();
  private readonly ended: Promise<void>;
  private next = 0;
  private failure: LorikeetError | undefined;

  constructor() {
    // sources run as they are in development, compiled ones after the build
    const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
    const gate = new Int32Array(new SharedArrayBuffer(8));
    gates.add(gate);
    this.worker = new Worker(new URL(`./worker${extension}`, import.meta.url), {
      workerData: gate,
    });
    this.worker.unref();
    this.worker.on("message", (message: ResponseMessage) => {
      this.settle(message);
    });
    this.worker.on("error", (cause) => {
      this.fail(crash(`it threw: ${cause.message}`, cause));
    });
    this.ended = new Promise((resolve) => {
      this.worker.on("exit", (code) => {
        gates.delete(gate);
        this.fail(crash(`it ended with exit code ${code}`));
        resolve();
      });
    });
  }

  /**
   * Asks the host; resolves with its answer.
   * @throws LorikeetError of the host, `engine-disposed` after dispose, `engine-crashed` when the thread ended
   */
  send(request: Request, transfer: readonly ArrayBuffer[] = []): Promise<Response> {
    if (this.failure) return Promise.reject(this.failure);
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.worker.ref();
      this.worker.postMessage({ id, request }, transfer);
    });
  }

  /** Lets what was sent finish, frees the host's sessions and ends the thread. */
  async dispose(): Promise<void> {
    if (!this.failure) {
      this.worker.ref();
      this.worker.postMessage("dispose");
      this.failure = new LorikeetError(
        "engine-disposed",
        "Expected an engine that is in use, got a disposed one",
      );
    }
    await this.ended;
  }

  private settle(message: ResponseMessage): void {
    const waiting = this.pending.get(message.id);
    this.pending.delete(message.id);
    if (this.pending.size === 0 && !this.failure) this.worker.unref();
    if ("error" in message) waiting?.reject(fromPlainError(message.error));
    else waiting?.resolve(message.response);
  }

  private fail(error: LorikeetError): void {
    this.failure ??= error;
    for (const { reject } of this.pending.values()) reject(this.failure);
    this.pending.clear();
  }
}

function crash(reason: string, cause?: unknown): LorikeetError {
  return new LorikeetError(
    "engine-crashed",
    `Expected the engine's thread to keep running; ${reason}`,
    {
      hint: "memory may have run out: try a smaller batch, or resume from the last checkpoint",
      cause,
    },
  );
}
