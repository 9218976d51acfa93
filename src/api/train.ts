import { type Adapter, peftKey } from "../adapter/adapter.ts";
import { initialPart } from "../adapter/init/initial-part.ts";
import { keyOf, parameterOf } from "../adapter/attach.ts";
import { initialTensor } from "../adapter/init.ts";
import type { LoraConfig } from "../adapter/lora-config.ts";
import { matchesModule, rankWarnings, resolveTargets } from "../adapter/targets.ts";
import type { Engine } from "../backends/backend.ts";
import type { Node } from "../ir/node.ts";
import { convert } from "../tensor/convert.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { TrainEvent } from "../train/events.ts";
import {
  evaluationGraph,
  stepShape,
  trainableParameters,
  trainingGraph,
  type TrainPlan,
} from "../train/plan.ts";
import { learningRateSchedule } from "../train/schedule.ts";
import { programCache, trainLoop, type TrainSetup } from "../train/trainer.ts";
import { checkMemory, estimateMemory } from "./memory-estimate.ts";
import type { Model } from "./model.ts";
import { openEngine } from "./open-engine.ts";
import { compareAnswers, openRecord, reportOf } from "./record.ts";
import { openRunStore, type RunStore } from "./run-store.ts";
import { type ResolvedRun, resolveTrainOptions, type TrainOptions } from "./train-options.ts";
import { openTrainingData, type TrainingData } from "./training-data.ts";

/** A training run: iterate over it to make it go; then ask for what it made. */
export interface TrainRun extends AsyncIterable<TrainEvent> {
  /** The trained adapter (the best one, where that is asked for). Runs to the end first if nobody has iterated. */
  adapter(): Promise<Adapter>;
  /** `model` with the trained adapter. */
  model(): Promise<Model>;
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
  let result: Adapter | undefined;
  const events = runEvents(model, run, (adapter) => (result = adapter));
  const adapter = async (): Promise<Adapter> => {
    while (!result && !(await events.next()).done);
    return result!;
  };
  return {
    [Symbol.asyncIterator]: () => events,
    adapter,
    model: async () => model.withAdapter(await adapter()),
  };
}

async function* runEvents(
  model: Model,
  run: ResolvedRun,
  finish: (adapter: Adapter) => void,
): AsyncGenerator<TrainEvent, void, undefined> {
  const store = await openRunStore(run);
  const record = await openRecord(run, store.resumed?.state.step);
  let trained: Adapter | undefined;
  const keep = (adapter: Adapter): void => finish((trained = adapter));
  try {
    for await (const event of trainingEvents(model, run, store, keep)) {
      await record?.record(event);
      yield event;
    }
    if (!trained) return;
    const answers = await compareAnswers(
      model,
      model.withAdapter(trained),
      run.config.sample_prompts,
    );
    for (const answer of answers) yield { type: "sample", ...answer };
    if (run.config.report) await record?.report(reportOf(model, trained, answers));
  } finally {
    await record?.close();
  }
}

async function* trainingEvents(
  model: Model,
  run: ResolvedRun,
  store: RunStore,
  finish: (adapter: Adapter) => void,
): AsyncGenerator<TrainEvent, void, undefined> {
  const { config, lora } = run;
  const data = await openTrainingData(model, config);
  for (const warning of data.warnings) yield { type: "warning", ...warning };
  const plan = planOf(model, run);
  for (const warning of planWarnings(model, run, plan, data)) yield { type: "warning", ...warning };
  const { device, threads, base_dtype: baseDtype } = config;
  const engine = await openEngine(model.checkpoint.weights, {
    ...{ device, baseDtype },
    ...(threads !== null && { threads }),
  });
  try {
    const parameters = trainableParameters(plan);
    await setParameters(engine, plan, { model, run, store, parameters });
    const evaluator =
      data.evaluation && programCache(engine, (batch) => evaluationGraph(plan, stepShape(batch)));
    const evaluate = evaluator && evaluation(evaluator, data);
    yield* trainLoop(setupOf({ engine, plan, run, data, store, evaluate, parameters }));
    await evaluator?.dispose();
    finish(await store.finish(() => adapterOf(engine, parameters, lora)));
  } finally {
    await engine.dispose();
  }
}

/** What is odd about a run before it begins. @throws LorikeetError `out-of-memory` when it cannot fit */
function planWarnings(
  model: Model,
  { config }: ResolvedRun,
  plan: TrainPlan,
  { report }: TrainingData,
): { code: string; message: string }[] {
  const warnings = rankWarnings(plan.sites, model.layers);
  if (!["auto", "cpu"].includes(config.device)) return warnings;
  const batch = config.per_device_train_batch_size;
  const length = config.packing ? Math.min(config.max_length, report.tokens) : report.longest;
  const share = report.supervisedTokens / report.tokens;
  const rows = Math.max(1, Math.ceil(batch * length * share));
  const shape = { batch, length, rows, hasSegments: config.packing };
  const weights = { source: model.checkpoint.weights, dtype: config.base_dtype };
  const estimate = estimateMemory(plan, weights, shape);
  const tight = checkMemory(estimate, process.availableMemory(), shape);
  return tight ? [...warnings, tight] : warnings;
}

function planOf(model: Model, { config, lora }: ResolvedRun): TrainPlan {
  const saved = lora.modulesToSave ?? [];
  return {
    config: model.checkpoint.config,
    sites: resolveTargets(lora, model.layers, model.family),
    trainsWeight: (name) => matchesModule(saved, name.replace(/\.(weight|bias)$/, "")),
    checkpointing: config.gradient_checkpointing,
  };
}

/** Gives every trainable parameter its first value: of the resumed run, the model's adapter, the base, or LoRA's init. */
async function setParameters(
  engine: Engine,
  plan: TrainPlan,
  { model, run, store, parameters }: Pick<Parts, "run" | "store" | "parameters"> & { model: Model },
): Promise<void> {
  const start = store.resumed?.adapter ?? model.adapter;
  const given = new Map(
    [...(start?.tensors ?? [])].map(([key, value]) => [parameterOf(key), value]),
  );
  const norms = start ? new Map<string, Tensor>() : await doraStart(model, run, plan);
  for (const { name, shape } of parameters) {
    const known = given.get(name!);
    const value = known ?? norms.get(name!) ?? (await firstValue(model, run, name!, shape));
    await engine.set(name!, convert(value, "f32"));
  }
  for (const [name, moment] of store.resumed?.optimizer ?? []) await engine.set(name, moment);
}

/** First values of the layers that DoRA adapts, by parameter: their magnitudes are norms of the base's weights. */
async function doraStart(
  model: Model,
  { lora, config }: ResolvedRun,
  plan: TrainPlan,
): Promise<Map<string, Tensor>> {
  const values = new Map<string, Tensor>();
  for (const candidate of model.layers) {
    const site = plan.sites.get(candidate.module);
    if (!site?.useDora) continue;
    const weight = await model.checkpoint.weights.read(candidate.weight);
    const nameOf = (part: string): string => peftKey(candidate.module, part);
    const { tensors } = initialPart(lora, { candidate, site, weight, seed: config.seed, nameOf });
    for (const [part, value] of Object.entries(tensors)) values.set(nameOf(part), value);
  }
  return values;
}

async function firstValue(
  model: Model,
  { lora, config }: ResolvedRun,
  name: string,
  shape: readonly number[],
): Promise<Tensor> {
  const { weights } = model.checkpoint;
  return weights.names.includes(name)
    ? weights.read(name)
    : initialTensor(lora, name, shape, config.seed);
}

function evaluation(
  programs: ReturnType<typeof programCache>,
  data: TrainingData,
): () => Promise<number> {
  return async () => {
    let loss = 0;
    for await (const batch of data.evaluation!())
      loss += Number((await (await programs.get(batch)).run(batch))["loss"]!.data[0]);
    return loss;
  };
}

interface Parts {
  readonly engine: Engine;
  readonly plan: TrainPlan;
  readonly run: ResolvedRun;
  readonly data: TrainingData;
  readonly store: RunStore;
  /** Everything that trains. */
  readonly parameters: readonly Node[];
  readonly evaluate: (() => Promise<number>) | undefined;
}

function setupOf({ engine, plan, run, data, store, evaluate, parameters }: Parts): TrainSetup {
  const { config } = run;
  const { stepsPerEpoch, totalSteps } = data;
  return {
    engine,
    graphFor: (batch) => trainingGraph(plan, stepShape(batch)),
    windows: data.windows,
    optimizer: {
      betas: [config.adam_beta1, config.adam_beta2],
      eps: config.adam_epsilon,
      weightDecay: config.weight_decay,
      maxGradNorm: config.max_grad_norm > 0 ? config.max_grad_norm : Infinity,
    },
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
        adapter: await adapterOf(engine, parameters, run.lora),
        optimizer:
          reason === "best" ? new Map<string, Tensor>() : await momentsOf(engine, parameters),
      }),
    ...(run.signal && { signal: run.signal }),
    now: () => performance.now(),
    memoryBytes: () => process.memoryUsage.rss(),
  };
}

async function adapterOf(
  engine: Engine,
  parameters: readonly Node[],
  config: LoraConfig,
): Promise<Adapter> {
  const tensors = new Map<string, Tensor>();
  for (const { name } of parameters)
    tensors.set(keyOf(name!), convert(await engine.get(name!), "f32"));
  return { config, tensors };
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
