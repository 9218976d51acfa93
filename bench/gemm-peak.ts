/**
 * @file The fastest that ONNX Runtime multiplies matrices on this machine, what `train-step` is a share of.
 *
 *   node --import ./scripts/typescript.js bench/gemm-peak.ts [threads]
 */
import { pathToFileURL } from "node:url";
import { encodeModel } from "../src/backends/onnx/proto.ts";
import { createNodeSession } from "../src/backends/onnx/session-node.ts";
import { tensor } from "../src/tensor/tensor.ts";

const SIZES = [
  [512, 576, 1536],
  [1024, 1024, 1024],
  [1024, 2048, 2048],
] as const;
const SECONDS = 1;

/** GFLOP/s of the fastest of several products of f32 matrices in a row, x·Wᵀ as in a linear layer. */
export async function measureGemmPeak(threads: number): Promise<{ gflops: number; shape: string }> {
  let best = { gflops: 0, shape: "" };
  for (const [M, K, N] of SIZES) {
    const model = encodeModel({
      name: "gemm",
      opsets: { "": 21 },
      nodes: [
        {
          ...{ opType: "Gemm", domain: "", name: "gemm", inputs: ["x", "w"], outputs: ["y"] },
          attributes: { transB: { kind: "int", value: 1 } },
        },
        // a small result, as results are copied
        {
          ...{ opType: "ReduceMax", domain: "", name: "max", inputs: ["y"], outputs: ["max"] },
          attributes: { keepdims: { kind: "int", value: 0 } },
        },
      ],
      initializers: [],
      inputs: [
        { name: "x", dtype: "f32", shape: [M, K] },
        { name: "w", dtype: "f32", shape: [N, K] },
      ],
      outputs: [{ name: "max", dtype: "f32", shape: [] }],
    });
    const options = { provider: "cpu", threads, weightsFolder: "/", keepsMemory: true };
    const session = await createNodeSession(model, options);
    const filled = (rows: number): Float32Array => new Float32Array(rows * K).fill(0.5);
    const feeds = { x: tensor("f32", [M, K], filled(M)), w: tensor("f32", [N, K], filled(N)) };
    const end = performance.now() + SECONDS * 1000;
    while (performance.now() < end) {
      const start = performance.now();
      await session.run(feeds, ["max"]);
      const gflops = (2 * M * N * K) / (performance.now() - start) / 1e6;
      if (gflops > best.gflops) best = { gflops, shape: `${M}×${K}×${N}` };
    }
    await session.release();
  }
  return best;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href)
  console.log(JSON.stringify(await measureGemmPeak(Number(process.argv[2] ?? 0))));
