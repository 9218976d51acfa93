/**
 * @file One training run of the comparison between LoRA and full fine-tuning, in a process of its own so that its peak
 * memory is its own. Reads a `TrainJob` as JSON from its argument, prints a `TrainResult` as JSON.
 *
 *   node --import ./scripts/typescript.js bench/promises/train-one.ts '{"model":"storyteller-6m","rank":"full",…}'
 */
import { stat } from "node:fs/promises";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { keyOf } from "../../src/adapter/attach.ts";
import { initialTensor } from "../../src/adapter/init.ts";
import { lora, type LoraConfig } from "../../src/adapter/lora-config.ts";
import { resolveTargets } from "../../src/adapter/targets.ts";
import { loadModel } from "../../src/api/load-model.ts";
import type { Model } from "../../src/api/model.ts";
import { openEngine } from "../../src/api/open-engine.ts";
import { resolveTrainOptions } from "../../src/api/train-options.ts";
import { openTrainingData } from "../../src/api/training-data.ts";
import type { Engine } from "../../src/backends/backend.ts";
import { saveAdapter } from "../../src/host/adapter-files.ts";
import { convert } from "../../src/tensor/convert.ts";
import { sizeOf } from "../../src/tensor/shape.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import {
  evaluationGraph,
  trainableParameters,
  stepShape,
  trainingGraph,
  type TrainPlan,
} from "../../src/train/plan.ts";
import { learningRateSchedule } from "../../src/train/schedule.ts";
import { programCache } from "../../src/train/program-cache.ts";
import { freshState, type TrainSetup } from "../../src/train/setup.ts";
import { trainLoop } from "../../src/train/trainer.ts";
import type { TrainJob, TrainResult } from "./jobs.ts";

/** Steps before times are counted: each size of batch is compiled in its first step. */
const WARM_UP = 8;

const job = JSON.parse(process.argv[2]!) as TrainJob;
const model = await loadModel(job.model);
const adapterConfig = lora({
  r: job.rank === "full" ? 1 : job.rank,
  alpha: 2 * (job.rank === "full" ? 1 : job.rank),
  targetModules: "all-linear",
  baseModel: job.model,
});
const { config } = resolveTrainOptions({
  data: job.data,
  evalData: job.evalData,
  lora: adapterConfig,
  maxSteps: job.steps,
  batchSize: job.batchSize,
  perDeviceEvalBatchSize: job.batchSize,
  maxLength: job.maxLength,
  learningRate: job.learningRate,
  lrSchedulerType: "cosine",
  warmupSteps: Math.ceil(job.steps / 10),
});
const plan: TrainPlan = {
  config: model.checkpoint.config,
  sites:
    job.rank === "full" ? new Map() : resolveTargets(adapterConfig, model.layers, model.family),
  trainsWeight: () => job.rank === "full",
  checkpointing: false,
};
const parameters = trainableParameters(plan);
const engine = await openEngine(model.checkpoint.weights);
for (const { name, shape } of parameters)
  await engine.set(name!, await firstValue(model, adapterConfig, { name: name!, shape }));
const data = await openTrainingData(model, config);
const evaluator = programCache(engine, (batch) => evaluationGraph(plan, stepShape(batch)));
const setup: TrainSetup = {
  engine,
  graphFor: (batch) => trainingGraph(plan, stepShape(batch)),
  windows: data.windows,
  optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
  learningRateAt: learningRateSchedule(config.lr_scheduler_type, {
    learningRate: config.learning_rate,
    totalSteps: job.steps,
    warmupSteps: config.warmup_steps,
    warmupRatio: 0,
  }),
  totalSteps: job.steps,
  seed: config.seed,
  state: freshState,
  async evaluate() {
    let loss = 0;
    for await (const batch of data.evaluation!())
      loss += Number((await (await evaluator.get(batch)).run(batch))["loss"]!.data[0]);
    return loss;
  },
  evalSteps: job.steps,
  patience: 0,
  saveSteps: 0,
  save: async () => "",
  now: () => performance.now(),
  memoryBytes: () => process.memoryUsage.rss(),
};

const seconds: number[] = [];
const evalLosses: number[] = [];
let loss = NaN;
let last = performance.now();
for await (const event of trainLoop(setup)) {
  const now = performance.now();
  if (event.type === "step") seconds.push((now - last) / 1000);
  if (event.type === "step") loss = event.loss;
  if (event.type === "eval") evalLosses.push(event.loss);
  last = performance.now();
}
const peakBytes = 1024 * process.resourceUsage().maxRSS;
const result: TrainResult = {
  rank: job.rank,
  learningRate: job.learningRate,
  steps: job.steps,
  trainable: parameters.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
  total: totalOf(model),
  optimizerBytes: await momentBytes(engine),
  peakBytes,
  stepSeconds: seconds.slice(Math.min(WARM_UP, Math.floor(seconds.length / 2))),
  evalLosses,
  trainLoss: loss,
  fileBytes: await fileBytes(),
};
await engine.dispose();
process.stdout.write(`${JSON.stringify(result)}\n`);

async function firstValue(
  { checkpoint: { weights } }: Model,
  adapter: LoraConfig,
  { name, shape }: { name: string; shape: readonly number[] },
): Promise<Tensor> {
  if (job.rank === "full") return convert(await weights.read(name), "f32");
  return initialTensor(adapter, name, shape, config.seed);
}

/** Weights of the base, each once: a stored copy of a shared matrix is not counted. */
function totalOf({ layers, checkpoint: { weights } }: Model): number {
  const used = new Set(layers.map(({ weight }) => weight));
  const isShared = layers.some(({ module, weight }) => module === "lm_head" && weight !== "lm_head.weight"); // prettier-ignore
  return weights.names
    .filter((name) => !(isShared && name === "lm_head.weight" && !used.has(name)))
    .reduce((sum, name) => sum + sizeOf(weights.get(name).shape), 0);
}

async function momentBytes(from: Engine): Promise<number> {
  let bytes = 0;
  for (const { name } of parameters)
    for (const part of ["exp_avg", "exp_avg_sq"])
      bytes += (await from.get(`${name!}.${part}`)).data.byteLength;
  return bytes;
}

/** Size of what was trained, as it is saved: f32 safetensors. */
async function fileBytes(): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), "lorikeet-promises-"));
  const tensors = new Map<string, Tensor>();
  for (const { name } of parameters) tensors.set(keyOf(name!), await engine.get(name!));
  await saveAdapter({ config: adapterConfig, tensors }, folder);
  const { size } = await stat(join(folder, "adapter_model.safetensors"));
  await rm(folder, { recursive: true });
  return size;
}
