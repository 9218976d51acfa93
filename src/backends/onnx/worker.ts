/** @file Entry of the thread that hosts ONNX Runtime, so that a step never blocks the event loop. */
import { parentPort, workerData } from "node:worker_threads";
import { Host } from "./host.ts";
import {
  BUSY,
  CLOSING,
  type RequestMessage,
  type Response,
  type ResponseMessage,
  toPlainError,
} from "./protocol.ts";
import { createNodeSession } from "./session-node.ts";

const port = parentPort!;
const gate = workerData as Int32Array;
const host = new Host(createNodeSession);
let last: Promise<void> = Promise.resolve();

port.on("message", (message: RequestMessage | "dispose") => {
  last = last.then(() => guarded(() => (message === "dispose" ? finish() : answer(message))));
});

/** Does `work` unless the process is about to end, which waits for work that has begun. */
async function guarded(work: () => Promise<void>): Promise<void> {
  Atomics.store(gate, BUSY, 1);
  if (Atomics.load(gate, CLOSING) === 0) await work();
  Atomics.store(gate, BUSY, 0);
  Atomics.notify(gate, BUSY);
}

async function answer({ id, request }: RequestMessage): Promise<void> {
  try {
    const response = await host.handle(request);
    post({ id, response }, response.kind === "tensors" ? buffersOf(response) : []);
  } catch (error) {
    post({ id, error: toPlainError(error) }, []);
  }
}

async function finish(): Promise<void> {
  await host.dispose();
  port.close();
}

function post(message: ResponseMessage, transfer: readonly ArrayBuffer[]): void {
  port.postMessage(message, transfer);
}

function buffersOf(response: Response & { kind: "tensors" }): ArrayBuffer[] {
  return [...new Set(Object.values(response.values).map(({ data }) => data.buffer as ArrayBuffer))];
}
