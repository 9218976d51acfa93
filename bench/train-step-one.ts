/**
 * @file One LoRA training step on the CPU, repeated, in a process of its own so that its peak memory and its start are
 * its own. Reads a `StepJob` as JSON from its argument, prints a `StepResult` as JSON.
 */
import { initialTensor } from "../src/adapter/init.ts";
import { lora } from "../src/adapter/lora-config.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import { loadModel } from "../src/api/load-model.ts";
import { openEngine } from "../src/api/open-engine.ts";
import type { Tensors } from "../src/backends/backend.ts";
import type { Graph } from "../src/ir/graph.ts";
import { Random } from "../src/tensor/random.ts";
import { tensor } from "../src/tensor/tensor.ts";
import {
  stepShape,
  trainableParameters,
  trainingGraph,
  type TrainPlan,
} from "../src/train/plan.ts";
import { stepPrograms } from "../src/train/step-programs.ts";
import type { StepJob, StepResult } from "./step-jobs.ts";

const job = JSON.parse(process.argv[2]!) as StepJob;
const { batch, length } = job;
const rows = batch * length;
const model = await loadModel(job.model);
const { config } = model.checkpoint;
const adapter = lora({
  ...{ r: job.rank, alpha: 2 * job.rank, dropout: job.dropout, targetModules: "all-linear" },
});
const plan: TrainPlan = {
  config,
  sites: resolveTargets(adapter, model.layers, model.family),
  trainsWeight: () => false,
  checkpointing: job.checkpointing,
};
const engine = await openEngine(model.checkpoint.weights, {
  threads: job.threads,
  baseDtype: job.baseDtype,
  memory: job.memory,
});
const beforeCompile = performance.now();
// compiled while the engine's thread starts
const feeds = randomBatch(Number(config["vocab_size"]));
const graphFor = (feeds: Tensors): Graph => trainingGraph(plan, stepShape(feeds));
const compiling = stepPrograms({ engine, graphFor }).get(feeds);
await Promise.all(
  trainableParameters(plan).map(({ name, shape }) =>
    engine.set(name!, initialTensor(adapter, name!, shape, 0)),
  ),
);
const program = await compiling;
const compileSeconds = (performance.now() - beforeCompile) / 1000;

const losses: number[] = [];
const stepSeconds: number[] = [];
let firstStepSeconds = 0;
for (let step = 1; step <= job.steps; step++) {
  const start = performance.now();
  const { loss } = await program.run(feeds);
  await engine.applyGradients({
    ...{ step, learningRate: 1e-4, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 },
    maxGradNorm: Infinity,
  });
  losses.push(Number(loss!.data[0]));
  if (step > 1) stepSeconds.push((performance.now() - start) / 1000);
  else firstStepSeconds = performance.now() / 1000; // counted from the start of the process
}
const result: StepResult = {
  ...{ losses, stepSeconds, firstStepSeconds, compileSeconds },
  peakBytes: 1024 * process.resourceUsage().maxRSS,
};
await engine.dispose();
process.stdout.write(`${JSON.stringify(result)}\n`);

function randomBatch(vocabulary: number): Tensors {
  const random = new Random(1);
  const each = (f: (i: number) => number): BigInt64Array =>
    BigInt64Array.from({ length: rows }, (_, i) => BigInt(f(i)));
  const ids = each(() => random.integer(vocabulary));
  return {
    input_ids: tensor("i64", [batch, length], ids),
    position_ids: tensor(
      "i64",
      [batch, length],
      each((i) => i % length),
    ),
    loss_rows: tensor(
      "i64",
      [rows],
      each((i) => i),
    ),
    targets: tensor("i64", [rows], ids),
    loss_weights: tensor("f32", [rows], new Float32Array(rows).fill(1 / rows)),
    ...(job.dropout > 0 && { dropout_seed: tensor("i64", [], BigInt64Array.of(1n)) }),
  };
}
