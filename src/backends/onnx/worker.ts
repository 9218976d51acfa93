/** @file Entry of the thread that hosts ONNX Runtime, so that a step never blocks the event loop. */
import { parentPort } from "node:worker_threads";
import { Host } from "./host.ts";
import {
  type RequestMessage,
  type Response,
  type ResponseMessage,
  toPlainError,
} from "./protocol.ts";
import { createNodeSession } from "./session-node.ts";

const port = parentPort!;
const host = new Host(createNodeSession);
let last: Promise<void> = Promise.resolve();

port.on("message", (message: RequestMessage | "dispose") => {
  last = last.then(() => (message === "dispose" ? finish() : answer(message)));
});

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
