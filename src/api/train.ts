import type { Adapter } from "../adapter/adapter.ts";
import { rankWarnings } from "../adapter/targets.ts";
import type { DataWarning } from "../data/data-warnings.ts";
import { loadAdapterFolder, saveAdapter } from "../host/adapter-files.ts";
import type { TrainEvent } from "../train/events.ts";
import {
  evaluationGraph,
  stepShape,
  trainableParameters,
  trainingGraph,
  type TrainPlan,
} from "../train/plan.ts";
import { heldBy } from "./choose-optimizer.ts";
import { freshAdapter } from "./fresh-adapter.ts";
import { checkMemory, estimateMemory } from "./memory-estimate.ts";
import type { Model } from "./model.ts";
import { compareAnswers, reportOf } from "./record.ts";
import type { RunStore } from "./run-store.ts";
import { type ResolvedRun, resolveTrainOptions, type TrainOptions } from "./train-options.ts";
import {
  openTaskEngine,
  windowConfig,
  runEvents,
  type TrainKind,
  type TrainTask,
} from "./train-task.ts";
import { openTrainingData, type TrainingData } from "./training-data.ts";

/** A training run: iterate over it to make it go; then ask for what it made. */
export interface TrainRun<M = Model> extends AsyncIterable<TrainEvent> {
  /** The trained adapter (the best one, where that is asked for). Runs to the end first if nobody has iterated. */
  adapter(): Promise<Adapter>;
  /** The base with the trained adapter. */
  model(): Promise<M>;
}

/**
 * Trains an adapter for `model`; the weights of the base never change.
 * @throws LorikeetError (when iterated) `config`, `lora-targets`, `output-exists`, `non-finite-loss`, and what reading
 * the data throws
 */
export function train(model: Model, options: TrainOptions): TrainRun {
  return startRun(model, resolveTrainOptions(options));
}

/** `train` with settings that are resolved already. */
export function startRun(model: Model, run: ResolvedRun): TrainRun {
  return trainRun(textKind(model), run, (adapter) => model.withAdapter(adapter));
}

/** A run of `kind`; `apply` gives the base with an adapter. */
export function trainRun<M>(
  kind: TrainKind,
  run: ResolvedRun,
  apply: (adapter: Adapter) => M,
): TrainRun<M> {
  let result: Adapter | undefined;
  const events = runEvents(kind, run, (adapter) => (result = adapter));
  const adapter = async (): Promise<Adapter> => {
    while (!result && !(await events.next()).done);
    return result!;
  };
  return {
    [Symbol.asyncIterator]: () => events,
    adapter,
    model: async () => apply(await adapter()),
  };
}

function textKind(model: Model): TrainKind {
  return {
    storage: { save: saveAdapter, load: loadAdapterFolder },
    open: (run, store) => openTextTask(model, run, store),
    async review({ config }, adapter) {
      const prompts = config.sample_prompts;
      const answers = await compareAnswers(model, model.withAdapter(adapter), prompts);
      const samples = answers.map((answer) => ({ type: "sample" as const, ...answer }));
      return { samples, report: reportOf(model.checkpoint, adapter, { answers }) };
    },
  };
}

async function openTextTask(model: Model, run: ResolvedRun, store: RunStore): Promise<TrainTask> {
  const { config } = run;
  const data = await openTrainingData(model, windowConfig(run), run.onRows);
  const known = store.resumed?.adapter ?? model.adapter;
  const start = known ?? (await freshAdapter(model, run, data));
  const adapted = model.withAdapter(start);
  const checkpointing = config.gradient_checkpointing || config.checkpointing === "on";
  const plan: TrainPlan = { ...adapted.plan, checkpointing, ...heldBy(config) };
  const ranks = rankWarnings(plan.sites, model.layers);
  const { engine, warnings } = await openTaskEngine(adapted.weights, run);
  try {
    if (engine.name === "onnx-cpu") warnings.push(...memoryWarnings(model, run, plan, data));
  } catch (error) {
    await engine.dispose();
    throw error;
  }
  const lean: TrainPlan = { ...plan, checkpointing: true };
  return {
    ...{ engine, data, start, base: model.base, sites: plan.sites },
    warnings: [...data.warnings, ...ranks, ...warnings],
    parameters: trainableParameters(plan),
    graphFor: (batch) => trainingGraph(plan, stepShape(batch)),
    ...(config.checkpointing === "auto" && {
      leanGraphFor: (batch) => trainingGraph(lean, stepShape(batch)),
    }),
    evaluationGraphFor: (batch) => evaluationGraph(plan, stepShape(batch)),
  };
}

/** A warning where memory is tight. @throws LorikeetError `out-of-memory` when the run cannot fit */
function memoryWarnings(
  model: Model,
  { config }: ResolvedRun,
  plan: TrainPlan,
  { report }: TrainingData,
): DataWarning[] {
  const batch = config.per_device_train_batch_size;
  const length = config.packing ? Math.min(config.max_length, report.tokens) : report.longest;
  const share = report.supervisedTokens / report.tokens;
  const rows = Math.max(1, Math.ceil(batch * length * share));
  const shape = { batch, length, rows, hasSegments: config.packing };
  const weights = { source: model.checkpoint.weights, dtype: config.base_dtype };
  const estimate = estimateMemory(plan, weights, shape);
  const tight = checkMemory(estimate, process.availableMemory(), shape);
  return tight ? [tight] : [];
}
