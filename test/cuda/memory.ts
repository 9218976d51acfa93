/** @file Too little memory: an error with numbers before the first step, and checkpointing where it is left to the run. */
import { allocateDevice, type Device, freeDevice } from "../../src/backends/cuda/device.ts";
import { type CudaEngine, cudaEngine } from "../../src/backends/cuda/engine.ts";
import type { CudaProgram } from "../../src/backends/cuda/program.ts";
import { LorikeetError } from "../../src/errors.ts";
import type { Graph } from "../../src/ir/graph.ts";
import { sizeOf } from "../../src/tensor/shape.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { trainableParameters, trainingGraph, type TrainPlan } from "../../src/train/plan.ts";
import { programCache } from "../../src/train/program-cache.ts";
import { type Check, storyteller } from "./check.ts";

const [B, T] = [32, 256];

async function setup(): Promise<{
  open: () => Promise<CudaEngine>;
  graph: (checkpointing: boolean) => Graph;
}> {
  const { config, source } = await storyteller();
  const shared = { rank: 8, scale: 2, dropout: 0, useDora: false, loraBias: false };
  const names = [0, 1, 2, 3, 4, 5].map((i) => `model.layers.${i}.self_attn.q_proj`);
  const sites = new Map(names.map((module) => [module, { module, ...shared }]));
  const plan: TrainPlan = { config, sites, trainsWeight: () => false, checkpointing: false };
  const shape = { batch: B, length: T, rows: B * T, hasSegments: false };
  return {
    async open() {
      const engine = cudaEngine(source);
      for (const { name, shape: sizes } of trainableParameters(plan))
        await engine.set(name!, tensor("f32", sizes, new Float32Array(sizeOf(sizes))));
      return engine;
    },
    graph: (checkpointing) => trainingGraph({ ...plan, checkpointing }, shape),
  };
}

async function arenaOf(open: () => Promise<CudaEngine>, graph: Graph): Promise<number> {
  const engine = await open();
  const { arenaBytes } = await engine.compile(graph);
  await engine.dispose();
  return arenaBytes;
}

async function checkMemory(device: Device): Promise<string> {
  const { open, graph } = await setup();
  const [full, lean] = [await arenaOf(open, graph(false)), await arenaOf(open, graph(true))];
  const engine = await open();
  // the smaller step brings weights and workspaces to the device before the rest of it is taken
  await (await engine.compile(graph(true))).dispose();
  const filler = allocateDevice(device, device.free() - (full - lean) / 2, "a check");
  try {
    const programs = programCache(
      engine,
      () => graph(false),
      () => graph(true),
    );
    const refused: unknown = await engine.compile(graph(false)).catch((error: unknown) => error);
    if (!(refused instanceof LorikeetError) || refused.code !== "cuda-memory")
      throw new Error(`expected cuda-memory, got ${String(refused)}`);
    const program = (await programs.get({})) as CudaProgram;
    if (!programs.isLean() || program.arenaBytes !== lean)
      throw new Error("expected the checkpointed step");
    return `${(full / 2 ** 20).toFixed(0)} MiB refused ("${refused.message}"), ${(lean / 2 ** 20).toFixed(0)} MiB with checkpointing`;
  } finally {
    freeDevice(device, filler);
    await engine.dispose();
  }
}

export const checks: readonly Check[] = [
  { name: "memory: refused with numbers, then checkpointed", run: checkMemory },
];
