/** @file Runs in a thread of its own: compiles what the engine's thread sends, one source at a time. */
import { parentPort } from "node:worker_threads";
import type { CompileJob } from "./compile-together.ts";
import { openCompiler } from "./ffi/nvrtc.ts";

parentPort!.on("message", ({ name, source, options }: CompileJob) => {
  let cubin: Uint8Array | undefined;
  try {
    ({ cubin } = openCompiler().compile(name, source, options));
  } catch {
    // the engine's thread compiles it again, and has the error
  }
  parentPort!.postMessage(cubin, []);
});
