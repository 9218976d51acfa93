import { join } from "node:path";
import type { Adapter } from "../adapter/adapter.ts";
import { plainLora } from "../adapter/plain-lora.ts";
import { targetWarnings } from "../adapter/targets.ts";
import type { DataWarning } from "../data/data-warnings.ts";
import { LorikeetError } from "../errors.ts";
import { loadAdapterFolder, saveAdapter } from "../host/adapter-files.ts";
import { freeMemory } from "../host/free-memory.ts";
import type { RunReport } from "../host/run-files/report.ts";
import type { TrainConfig } from "../host/train-config.ts";
import { sizeOf } from "../tensor/shape.ts";
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
import { openLabelledData } from "./labelled-data.ts";
import { merge } from "./merge.ts";
import type { Model } from "./model.ts";
import { compareAnswers, reportOf } from "./record.ts";
import type { RunStore } from "./run-store.ts";
import { type ResolvedRun, resolveTrainOptions, type TrainOptions } from "./train-options.ts";
import {
  isCheckpointed,
  openTaskEngine,
  runEvents,
  stepGraphs,
  windowConfig,
  type TrainKind,
  type TrainTask,
} from "./train-task.ts";
import { openTrainingData, type TextData } from "./training-data.ts";

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
  return trainRun(textKind(model, run), run, (adapter) => model.withAdapter(adapter));
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

function textKind(model: Model, { config: { full } }: ResolvedRun): TrainKind {
  return {
    storage: {
      save: saveAdapter,
      load: loadAdapterFolder,
      ...(full && { saveResult: (adapter, folder) => saveModel(model, adapter, folder) }),
    },
    open: (run, store) => openTextTask(model, run, store),
  };
}

async function openTextTask(model: Model, run: ResolvedRun, store: RunStore): Promise<TrainTask> {
  const { config } = run;
  checkTask(model, config);
  const { model: own, data } = await openTextData(model, windowConfig(run), run.onRows);
  const known = store.resumed?.adapter ?? own.adapter;
  const start = known ?? (await freshAdapter(own, run, data));
  const adapted = own.withAdapter(start);
  const plan: TrainPlan = {
    ...adapted.plan,
    checkpointing: isCheckpointed(config),
    ...heldBy(config),
  };
  const { engine, warnings } = await openTaskEngine(adapted.weights, run);
  try {
    if (engine.name === "onnx-cpu")
      warnings.push(...(await memoryWarnings(model, run, plan, data)));
  } catch (error) {
    await engine.dispose();
    throw error;
  }
  return {
    ...{ engine, data, start, base: adapted.base, sites: plan.sites },
    ...(config.save_as_lora && {
      finish: (adapter) => plainLora(adapter, adapted.base.weights, { layers: adapted.layers, sites: plan.sites }), // prettier-ignore
    }),
    warnings: [
      ...data.warnings,
      ...targetWarnings(run.lora, plan.sites, model.layers),
      ...warnings,
    ],
    parameters: trainableParameters(plan),
    ...stepGraphs(plan, config, (own, batch) => trainingGraph(own, stepShape(batch))),
    evaluationGraphFor: (batch) => evaluationGraph(plan, stepShape(batch)),
    review: (adapter) => reviewAnswers(model, config, adapter),
  };
}

/** Answers before and after training, and the report. */
async function reviewAnswers(
  model: Model,
  { sample_prompts: prompts, full }: TrainConfig,
  adapter: Adapter,
): ReturnType<TrainTask["review"]> {
  const answers = await compareAnswers(model, model.withAdapter(adapter), prompts);
  const samples = answers.map((answer) => ({ type: "sample" as const, ...answer }));
  const report = reportOf(model.checkpoint, adapter, { answers });
  return { samples, report: full ? { ...report, ...fullReport(model) } : report };
}

/** The data of a run, and the model with a head for its classes where it has some. */
async function openTextData(
  model: Model,
  config: TrainConfig,
  onRows: ResolvedRun["onRows"],
): Promise<{ model: Model; data: TextData }> {
  if (!model.labels) return { model, data: await openTrainingData(model, config, onRows) };
  const data = await openLabelledData(model, config);
  const isSame = data.labels.join("\n") === model.labels.join("\n");
  if (isSame || model.adapter) return { model, data };
  return { model: model.withLabels(data.labels), data };
}

/** @throws LorikeetError `config-invalid` when the model is not of the task */
function checkTask({ labels, checkpoint }: Model, { task, sample_prompts }: TrainConfig): void {
  const wanted = labels ? "text-classification" : "text-generation";
  const type = String(checkpoint.config["model_type"]);
  if (task !== wanted)
    throw new LorikeetError(
      "config-invalid",
      `Expected \`task: ${wanted}\` for ${checkpoint.name}, a model of type ${type}, got ${task}`,
      { hint: "Encoders (bert, roberta, modernbert) classify; all other text models generate." },
    );
  if (labels && sample_prompts.length > 0)
    throw new LorikeetError(
      "config-invalid",
      "Expected no `sample_prompts` with `task: text-classification`: there is nothing to answer",
      { hint: "Leave `sample_prompts` out." },
    );
}

/** Writes every trained weight as a model folder in `folder`. */
async function saveModel(model: Model, adapter: Adapter, folder: string): Promise<void> {
  await merge(model.withAdapter(adapter), adapter, join(folder, "model"), { overwrite: true });
}

function fullReport(model: Model): Pick<RunReport, "title" | "numbers"> {
  const { weights } = model.checkpoint;
  const total = weights.names.reduce((sum, name) => sum + sizeOf(weights.get(name).shape), 0);
  const value = total.toLocaleString("en");
  return {
    title: `${model.checkpoint.name}: full fine-tuning`,
    numbers: [{ label: "Trained parameters", value, note: "every weight of the model" }],
  };
}

/** A warning where memory is tight. @throws LorikeetError `out-of-memory` when the run cannot fit */
async function memoryWarnings(
  model: Model,
  { config }: ResolvedRun,
  plan: TrainPlan,
  { report }: TextData,
): Promise<DataWarning[]> {
  const batch = config.per_device_train_batch_size;
  const length = config.packing ? Math.min(config.max_length, report.tokens) : report.longest;
  const share = report.supervisedTokens / report.tokens;
  const rows = Math.max(1, Math.ceil(batch * length * share));
  const shape = { batch, length, rows, hasSegments: config.packing };
  const weights = { source: model.checkpoint.weights, dtype: config.base_dtype };
  const estimate = estimateMemory(plan, weights, shape);
  const mayExceed = !config.check_memory;
  const rowsOf = { batch, row: `${length} tokens`, option: "--max-length", mayExceed };
  return checkMemory(estimate, await freeMemory(), rowsOf);
}
