/** @file Tokens a second when a model of random weights generates on the GPU, one token at a time. */
import { type CudaOptions, cudaEngine } from "../../src/backends/cuda/engine.ts";
import { createDecoder } from "../../src/generate/decoder.ts";
import { rootsOf, topological } from "../../src/ir/graph.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { isFrozen } from "../../src/ops/leaf.ts";
import type { Shape } from "../../src/tensor/shape.ts";
import { decodeGraph, forwardGraph, type TrainPlan } from "../../src/train/plan.ts";
import { randomSource } from "./random-source.ts";

const PROMPT = 96;
const TOKENS = 24;

/** Median milliseconds of a token, over a cache of 128 slots. */
export async function measureDecode(config: HfConfig, options: CudaOptions): Promise<number> {
  const plan: TrainPlan = {
    ...{ config, sites: new Map(), trainsWeight: () => false, checkpointing: false },
  };
  const graph = forwardGraph(plan, { batch: 1, length: 1 });
  const frozen = topological(rootsOf(graph)).filter(isFrozen);
  const shapes = new Map<string, Shape>(frozen.map(({ name, shape }) => [name!, shape]));
  const engine = cudaEngine(randomSource(shapes), options);
  const decoder = createDecoder(engine, (size) => decodeGraph(plan, size));
  await decoder.start([Array.from({ length: PROMPT }, (_, i) => i)]);
  const times: number[] = [];
  for (let i = 0; i < TOKENS; i++) {
    const from = performance.now();
    await decoder.next([i]);
    times.push(performance.now() - from);
  }
  await decoder.dispose();
  await engine.dispose();
  return times.sort((a, b) => a - b)[TOKENS / 2]!;
}
