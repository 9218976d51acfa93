import type { Adapter } from "../adapter/adapter.ts";
import type { AdapterBase } from "../adapter/adapter-base.ts";
import { parametersOf } from "../adapter/attach.ts";
import { trainedAdapter } from "../adapter/trained-adapter.ts";
import type { Engine, WeightSource } from "../backends/backend.ts";
import type { DataWarning } from "../data/data-warnings.ts";
import type { DataLoader } from "../data/windows.ts";
import type { RunReport } from "../host/run-files/report.ts";
import { readRank } from "../host/ranks.ts";
import type { AdapterStorage } from "../host/run-store.ts";
import type { TrainConfig } from "../host/train-config.ts";
import type { Graph } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import type { LoraSite } from "../passes/lora.ts";
import { convert } from "../tensor/convert.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { SampleEvent, TrainEvent } from "../train/events.ts";
import { learningRateSchedule } from "../train/schedule.ts";
import { programCache } from "../train/program-cache.ts";
import { shareOf } from "../train/ranks.ts";
import type { Batch, TrainSetup } from "../train/setup.ts";
import type { StepPlan } from "../train/step-graph.ts";
import { trainLoop } from "../train/trainer.ts";
import { chooseOptimizer } from "./choose-optimizer.ts";
import { openEngine } from "./open-engine.ts";
import { openRecord } from "./record.ts";
import { isFollower, openRunStore, resumeWarnings, type RunStore } from "./run-store.ts";
import { runSize, type RunSize } from "./run-size.ts";
import type { ResolvedRun } from "./train-options.ts";

/** The samples of a run as batches. */
export interface TaskData {
  /** Optimizer steps of the whole run, and of one pass over the data. */
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  readonly windows: TrainSetup["windows"];
  /** What was read. */
  readonly report: RunSize["data"];
  /** Batches of the evaluation data, whose loss weights add up to 1; undefined when there is none. */
  readonly evaluation: (() => AsyncIterable<Batch>) | undefined;
}

/** The windows of `loader`, and how many of them `config` asks for. */
export function windowsOf(
  loader: DataLoader,
  config: TrainConfig,
): Pick<TaskData, "totalSteps" | "stepsPerEpoch" | "windows"> {
  return {
    totalSteps: config.max_steps > 0 ? config.max_steps : loader.windowsIn(config.num_train_epochs),
    stepsPerEpoch: loader.windowsIn(1),
    windows: (cursor) => loader.windows(cursor),
  };
}

/** What is being trained in a run: text or images. It owns its engine. */
export interface TrainTask {
  readonly engine: Engine;
  readonly data: TaskData;
  readonly warnings: readonly DataWarning[];
  /** Everything that trains. */
  readonly parameters: readonly Node[];
  readonly sites: ReadonlyMap<string, LoraSite>;
  /** What it begins with: a fresh adapter, the model's, or that of the checkpoint which the run continues. */
  readonly start: Adapter;
  /** What is made of the trained adapter. */
  readonly finish?: (adapter: Adapter) => Promise<Adapter>;
  /** The layers that it is for. */
  readonly base: Pick<AdapterBase, "layers" | "family" | "weights">;
  readonly graphFor: TrainSetup["graphFor"];
  readonly leanGraphFor?: TrainSetup["leanGraphFor"];
  readonly evaluationGraphFor: (batch: Batch) => Graph;
  readonly unit?: "images";
  /** What is told after `event` of the loop (and before the first, `undefined`). */
  readonly after?: (event: TrainEvent | undefined) => AsyncIterable<TrainEvent>;
  /** What the trained adapter does, and what the report says of it. */
  review(
    adapter: Adapter,
  ): Promise<{ samples: readonly SampleEvent[]; report: Omit<RunReport, "config" | "events"> }>;
}

/** A kind of training. */
export interface TrainKind {
  readonly storage: AdapterStorage;
  /** Reads the data and opens an engine. */
  open(run: ResolvedRun, store: RunStore): Promise<TrainTask>;
}

/** Settings that make windows, of which each process that trains takes its share. */
export function windowConfig({ config, ranks }: ResolvedRun): TrainConfig {
  const gradient_accumulation_steps = config.gradient_accumulation_steps * (ranks?.size ?? 1);
  return { ...config, gradient_accumulation_steps };
}

/** Whether the settings ask for steps that compute activations twice, whatever memory there is. */
export function isCheckpointed(config: TrainConfig): boolean {
  return config.gradient_checkpointing || config.checkpointing === "on";
}

/** The steps of `plan` by batch, and where checkpointing is chosen by memory the lean ones. */
export function stepGraphs<P extends StepPlan>(
  plan: P,
  { checkpointing }: TrainConfig,
  graphOf: (plan: P, batch: Batch) => Graph,
): Pick<TrainTask, "graphFor" | "leanGraphFor"> {
  const lean = { ...plan, checkpointing: true };
  return {
    graphFor: (batch) => graphOf(plan, batch),
    ...(checkpointing === "auto" && { leanGraphFor: (batch) => graphOf(lean, batch) }),
  };
}

/** An engine over `weights` as the run asks for it, and a warning of what was chosen where there was a choice. */
export async function openTaskEngine(
  weights: WeightSource,
  { config: { device, threads, memory, base_dtype: baseDtype }, ranks }: ResolvedRun,
): Promise<{ engine: Engine; warnings: DataWarning[] }> {
  const warnings: DataWarning[] = [];
  const engine = await openEngine(weights, {
    ...{ device, baseDtype, memory },
    onNote: (message) => void warnings.push({ code: "device", message }),
    ...(threads !== null && { threads }),
    ...(ranks && { ranks }),
  });
  return { engine, warnings };
}

/**
 * The events of a run of `kind`; `finish` is told the trained adapter. Of processes that train together, rank 0 alone
 * tells what happens and writes files.
 */
export async function* runEvents(
  kind: TrainKind,
  given: ResolvedRun,
  finish: (adapter: Adapter) => void,
): AsyncGenerator<TrainEvent, void, undefined> {
  const ranks = readRank();
  const run = ranks ? { ...given, ranks } : given;
  const store = await openRunStore(run, kind.storage);
  const task = await kind.open(run, store);
  let trained: Adapter | undefined;
  let record: Awaited<ReturnType<typeof openRecord>> = undefined;
  try {
    if (!isFollower(run)) {
      run.onStart?.(runSize(task));
      record = await openRecord(run, store.resumed?.state.step);
    }
    const keep = (adapter: Adapter): void => finish((trained = adapter));
    for await (const event of taskEvents(task, run, store, keep)) {
      if (isFollower(run)) continue;
      await record?.record(event);
      yield event;
    }
    if (!trained || isFollower(run)) return;
    const { samples, report } = await task.review(trained);
    for (const sample of samples) yield sample;
    if (run.config.report) await record?.report(report);
  } finally {
    await record?.close();
    await task.engine.dispose();
  }
}

async function* taskEvents(
  task: TrainTask,
  run: ResolvedRun,
  store: RunStore,
  finish: (adapter: Adapter) => void,
): AsyncGenerator<TrainEvent, void, undefined> {
  const { engine, data } = task;
  for (const warning of [...resumeWarnings(run, store), ...task.warnings])
    yield { type: "warning", ...warning };
  await setStart(task, store);
  const evaluator = data.evaluation && programCache(engine, task.evaluationGraphFor);
  const evaluate = evaluator && agreed(run, engine, evaluation(evaluator, data));
  const after = isFollower(run) ? undefined : task.after;
  if (after && store.state.step === 0) yield* after(undefined);
  for await (const event of trainLoop(setupOf(task, run, store, evaluate))) {
    yield event;
    if (!after) continue;
    const best = event.type === "end" ? store.chosen() : undefined;
    if (best) await setAdapter(task, best); // what is shown at the end is what is kept
    yield* after(event);
  }
  await evaluator?.dispose();
  finish(await store.finish(() => adapterOf(task), task.finish));
}

/** Gives every trainable parameter its first value, and the optimizer the moments of a resumed run. */
async function setStart(task: TrainTask, { resumed }: RunStore): Promise<void> {
  await setAdapter(task, task.start);
  for (const [name, moment] of resumed?.optimizer ?? []) await task.engine.set(name, moment);
}

/** Gives every trainable parameter its value in `adapter`, in one order for all runs: sums over them round by it. */
async function setAdapter(
  { engine, parameters, base }: TrainTask,
  adapter: Adapter,
): Promise<void> {
  const pairs = [...parametersOf(adapter, base.layers, base.family)];
  const keys = new Map(pairs.map(([key, name]) => [name, key]));
  for (const { name } of parameters) {
    const value = adapter.tensors.get(keys.get(name!) ?? "");
    if (value) await engine.set(name!, convert(value, "f32"));
  }
}

function evaluation(
  programs: ReturnType<typeof programCache>,
  data: TaskData,
): () => Promise<number> {
  return async () => {
    let loss = 0;
    for await (const batch of data.evaluation!())
      loss += Number((await (await programs.get(batch)).run(batch))["loss"]!.data[0]);
    return loss;
  };
}

/** Rank 0's loss for all processes, as they stop and save by it. */
function agreed(
  run: ResolvedRun,
  engine: Engine,
  evaluate: () => Promise<number>,
): () => Promise<number> {
  return async () => {
    const loss = await evaluate();
    const [shared = loss] = (await engine.sum?.([isFollower(run) ? 0 : loss])) ?? [loss];
    return shared;
  };
}

function setupOf(
  task: TrainTask,
  run: ResolvedRun,
  store: RunStore,
  evaluate: (() => Promise<number>) | undefined,
): TrainSetup {
  const { config } = run;
  const { engine, data, graphFor, leanGraphFor, parameters, unit } = task;
  const { stepsPerEpoch, totalSteps } = data;
  return {
    engine,
    graphFor,
    ...(leanGraphFor && { leanGraphFor }),
    windows: run.ranks ? (cursor) => shareOf(data.windows(cursor), run.ranks!) : data.windows,
    ...(unit && { unit }),
    ...chooseOptimizer(config, task),
    learningRateAt: learningRateSchedule(config.lr_scheduler_type, {
      learningRate: config.learning_rate,
      totalSteps,
      warmupSteps: config.warmup_steps,
      warmupRatio: config.warmup_ratio,
    }),
    totalSteps,
    seed: config.seed,
    state: store.state,
    ...(evaluate && { evaluate }),
    evalSteps: config.eval_steps ?? stepsPerEpoch,
    patience: config.early_stopping_patience ?? 0,
    saveSteps: config.save_steps ?? stepsPerEpoch,
    save: async (state, reason) =>
      store.save(state, reason, {
        adapter: await adapterOf(task),
        optimizer:
          reason === "best" ? new Map<string, Tensor>() : await momentsOf(engine, parameters),
      }),
    ...(run.signal && { signal: run.signal }),
    now: () => performance.now(),
    memoryBytes: () => process.memoryUsage.rss(),
  };
}

async function adapterOf({ engine, parameters, start, base }: TrainTask): Promise<Adapter> {
  const names = new Set(parameters.map(({ name }) => name!));
  const read = async (name: string): Promise<Tensor> => convert(await engine.get(name), "f32");
  return trainedAdapter(start, base, { names, read });
}

async function momentsOf(
  engine: Engine,
  parameters: readonly Node[],
): Promise<Map<string, Tensor>> {
  const moments = new Map<string, Tensor>();
  for (const { name } of parameters)
    for (const part of ["exp_avg", "exp_avg_sq"])
      moments.set(`${name!}.${part}`, await engine.get(`${name!}.${part}`));
  return moments;
}
