/**
 * @file One LoRA training step on the CPU, repeated, in a process of its own so that its peak memory and start are its
 * own. Reads a `StepJob` as JSON from its argument, prints a `StepResult` as JSON.
 */
import { lora } from "../src/adapter/lora-config.ts";
import { initialTensor } from "../src/adapter/init.ts";
import { keyOf } from "../src/adapter/attach.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import { loadModel } from "../src/api/load-model.ts";
import { openEngine } from "../src/api/open-engine.ts";
import { Random } from "../src/tensor/random.ts";
import { tensor } from "../src/tensor/tensor.ts";
import { trainableParameters, trainingGraph, type TrainPlan } from "../src/train/plan.ts";
import type { StepJob, StepResult } from "./step-jobs.ts";

const job = JSON.parse(process.argv[2]!) as StepJob;
const { batch, length } = job;
const model = await loadModel(job.model);
const config = lora({ r: job.rank, alpha: 2 * job.rank, targetModules: "all-linear" });
const plan: TrainPlan = {
  config: model.checkpoint.config,
  sites: resolveTargets(config, model.layers, model.family),
  trainsWeight: () => false,
  checkpointing: job.checkpointing,
};
const engine = await openEngine(model.checkpoint.weights, {
  threads: job.threads,
  baseDtype: job.baseDtype,
});
