/** @file Times training steps of one model on the GPU, with random weights, on the same batch again and again. */
import { type CudaEngine, cudaEngine, type CudaOptions } from "../../src/backends/cuda/engine.ts";
import type { CudaProgram } from "../../src/backends/cuda/program.ts";
import { rootsOf, topological } from "../../src/ir/graph.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { causalLM } from "../../src/models/registry.ts";
import { isFrozen } from "../../src/ops/leaf.ts";
import { loraCandidates } from "../../src/passes/lora.ts";
import { Random } from "../../src/tensor/random.ts";
import { type Shape, sizeOf } from "../../src/tensor/shape.ts";
import { tensor, type Tensor } from "../../src/tensor/tensor.ts";
import { trainableParameters, trainingGraph, type TrainPlan } from "../../src/train/plan.ts";
import { fileSource, randomSource } from "./random-source.ts";

/** What is measured. */
export interface StepJob {
  readonly config: HfConfig;
  readonly batch: number;
  readonly length: number;
  readonly rank: number;
  /** Steps whose times count; three more come before them. */
  readonly steps: number;
  readonly checkpointing: boolean;
  readonly options: CudaOptions;
  /** File of weights, read as a checkpoint is. */
  readonly weights: string | undefined;
  readonly profile: boolean;
}

/** What was found, as it is printed. */
export interface StepResult {
  readonly ms: number;
  readonly gpuMs: number;
  readonly tokensPerSecond: number;
  readonly usedGiB: number;
  readonly arenaGiB: number;
  readonly weightsGiB: number;
  readonly compileMs: number;
  /** Since the process began. */
  readonly firstStepMs: number;
  readonly losses: readonly number[];
  readonly profile?: Readonly<Record<string, string>>;
}

/** Runs `job` and gives the GPU back; `processes` do the same at once, and the tokens of all count. */
export async function measureStep(job: StepJob, processes = 1): Promise<StepResult> {
  const { config, batch, length, checkpointing, options } = job;
  const plan = planOf(job);
  const shape = { batch, length, rows: batch * length, hasSegments: false };
  const graph = trainingGraph({ ...plan, checkpointing }, shape);
  const frozen = new Map<string, Shape>(
    topological(rootsOf(graph))
      .filter(isFrozen)
      .map((node) => [node.name!, node.shape]),
  );
  const source = job.weights === undefined ? randomSource(frozen) : fileSource(job.weights, frozen);
  const engine = cudaEngine(source, options);
  const free = engine.device.free();
  await setAdapters(engine, plan);
  const start = performance.now();
  const program = await engine.compile(graph);
  const compileMs = performance.now() - start;
  const times = await runSteps(engine, program, job, feedsOf(job, Number(config["vocab_size"])));
  const gpuMs = median(Array.from({ length: 3 }, () => program.time()));
  await engine.clearGradients();
  const profile = job.profile ? table(program.profile()) : undefined;
  const ms = median(times.walls);
  const gib = (bytes: number): number => round(bytes / 2 ** 30);
  const result: StepResult = {
    ...{ ms: round(ms), gpuMs: round(gpuMs), compileMs: Math.round(compileMs) },
    tokensPerSecond: Math.round((processes * batch * length) / (ms / 1000)),
    usedGiB: gib(free - engine.device.free()),
    arenaGiB: gib(program.arenaBytes),
    weightsGiB: gib(engine.memory().weights),
    firstStepMs: Math.round(times.first),
    losses: times.losses.map((value) => Number(value.toFixed(4))),
    ...(profile && { profile }),
  };
  await program.dispose();
  await engine.dispose();
  return result;
}

/** Adapters on every linear layer but the head. */
function planOf({ config, rank }: StepJob): TrainPlan {
  const model = causalLM(config, { batch: 1, length: 1 });
  const candidates = loraCandidates([model.head(model.hidden)]).filter(
    ({ kind, module }) => kind === "linear" && module !== "lm_head",
  );
  const shared = { rank, scale: 2, dropout: 0, useDora: false, loraBias: false };
  const sites = new Map(candidates.map(({ module }) => [module, { module, ...shared }]));
  return { config, sites, trainsWeight: () => false, checkpointing: false };
}

async function setAdapters(engine: CudaEngine, plan: TrainPlan): Promise<void> {
  const random = new Random(3);
  for (const { name, shape } of trainableParameters(plan)) {
    const deviation = name!.includes("lora_A") ? 0.02 : 0;
    const data = Float32Array.from({ length: sizeOf(shape) }, () => deviation * random.normal());
    await engine.set(name!, tensor("f32", shape, data));
  }
}

async function runSteps(
  engine: CudaEngine,
  program: CudaProgram,
  { steps }: StepJob,
  feeds: Readonly<Record<string, Tensor>>,
): Promise<{ walls: number[]; losses: number[]; first: number }> {
  const [walls, losses]: [number[], number[]] = [[], []];
  let first = 0;
  for (let step = 1; step <= steps + 3; step++) {
    const from = performance.now();
    const { loss } = await program.run(feeds);
    await engine.applyGradients({
      ...{ step, learningRate: 1e-4, betas: [0.9, 0.999], eps: 1e-8 },
      ...{ weightDecay: 0.01, maxGradNorm: 1, lossScale: engine.lossScale ?? 1 },
    });
    walls.push(performance.now() - from);
    first ||= performance.now();
    losses.push(Number(loss!.data[0]));
  }
  return { walls: walls.slice(3), losses, first };
}

/** Random tokens, every one of which is predicted. */
function feedsOf({ batch, length }: StepJob, vocabulary: number): Record<string, Tensor> {
  const random = new Random(2);
  const tokens = batch * length;
  const ints = (shape: Shape, f: (i: number) => number): Tensor =>
    tensor(
      "i32",
      shape,
      Int32Array.from({ length: sizeOf(shape) }, (_, i) => f(i)),
    );
  return {
    input_ids: ints([batch, length], () => random.integer(vocabulary)),
    position_ids: ints([batch, length], (i) => i % length),
    loss_rows: ints([tokens], (i) => i),
    targets: ints([tokens], () => random.integer(vocabulary)),
    loss_weights: tensor("f32", [tokens], new Float32Array(tokens).fill(1 / tokens)),
  };
}

/** Time of each kind of unit, largest first. */
function table(profile: ReturnType<CudaProgram["profile"]>): Record<string, string> {
  const sorted = [...profile].sort((a, b) => b.milliseconds - a.milliseconds);
  return Object.fromEntries(
    sorted.map(({ name, count, milliseconds }) => [
      name,
      `${milliseconds.toFixed(2)} ms in ${count}`,
    ]),
  );
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

function round(value: number): number {
  return Number(value.toFixed(2));
}
