import type { Adapter } from "../adapter/adapter.ts";
import { completeConfig } from "../adapter/complete-config.ts";
import { evaDirections, type NextActivations, withEvaRanks } from "../adapter/init/eva.ts";
import { initialAdapter } from "../adapter/initial-adapter.ts";
import { EVA_DEFAULTS, lora as loraConfig, type LoraConfig } from "../adapter/lora-config.ts";
import { resolveTargets } from "../adapter/targets.ts";
import type { Engine } from "../backends/backend.ts";
import {
  activationRows,
  activationsGraph,
  countedRows,
  inputSources,
} from "../train/activations.ts";
import { stepShape } from "../train/plan.ts";
import { programCache } from "../train/program-cache.ts";
import type { Batch } from "../train/setup.ts";
import type { Model } from "./model.ts";
import type { ResolvedRun } from "./train-options.ts";
import { openTaskEngine, type TaskData } from "./train-task.ts";

/**
 * What a run without an adapter begins with; `eva` reads batches of the run's data first.
 * @throws LorikeetError as `initialAdapter`, and `eva` where the data is too little
 */
export async function freshAdapter(
  model: Model,
  run: ResolvedRun,
  data: TaskData,
): Promise<Adapter> {
  const { config } = run;
  const { base } = model;
  const lora = adapterFor(model, run);
  const seed = config.seed;
  if (lora.init !== "eva") return initialAdapter(lora, base, { seed });
  const complete = completeConfig(lora, base);
  const sites = resolveTargets(complete, base.layers, base.family);
  const linears = base.layers.filter(
    ({ module, kind }) => kind === "linear" && sites.get(module)?.isParameter !== true && sites.has(module), // prettier-ignore
  );
  const modules = new Set(linears.map(({ module }) => module));
  const sources = inputSources(model.plan, modules);
  const layers = linears.map(({ module }) => ({
    module,
    rank: sites.get(module)!.rank,
    source: sources.get(module)!,
  }));
  const eva = complete.eva ?? EVA_DEFAULTS;
  const { engine } = await openTaskEngine(base.weights, run);
  try {
    const next = activationReader(model, engine, { data, onlyTargets: eva.useLabelMask, sources });
    const given = await evaDirections(layers, eva, next);
    const ranked = withEvaRanks(complete, given, sites.keys());
    return await initialAdapter(ranked, base, { seed, given });
  } finally {
    await engine.dispose();
  }
}

/** What the run asks for, of this model; with `full` every weight as it is. */
function adapterFor({ base, labels }: Model, { lora: asked, config }: ResolvedRun): LoraConfig {
  const taskType = labels ? "SEQ_CLS" : asked.taskType;
  if (!config.full) return { ...asked, taskType };
  const modulesToSave = [...new Set([...base.uses.values()].map((name) => name.split(".")[0]!))];
  const { baseModel } = asked;
  return loraConfig({
    targetModules: [],
    modulesToSave,
    ensureWeightTying: true,
    taskType,
    baseModel,
  });
}

function activationReader(
  { plan }: Model,
  engine: Engine,
  from: { data: TaskData; onlyTargets: boolean; sources: ReadonlyMap<string, string> },
): NextActivations {
  const batches = batchesOf(from.data);
  const leaders = new Set(from.sources.values());
  const rowsOf = (batch: Batch): ReturnType<typeof activationRows> =>
    activationRows(batch, from.onlyTargets);
  const programs = programCache(engine, (batch) => {
    const rows = rowsOf(batch).rows.data.length;
    return activationsGraph(plan, { ...stepShape(batch), rows }, leaders);
  });
  return async (sources) => {
    const batch = (await batches.next()).value as Batch;
    const { rows, count } = rowsOf(batch);
    const program = await programs.get(batch);
    const found = await program.run({ ...batch, activation_rows: rows });
    return new Map(sources.map((source) => [source, countedRows(found[source]!, count)]));
  };
}

async function* batchesOf(data: TaskData): AsyncGenerator<Batch> {
  for await (const { batches } of data.windows(undefined)) yield* batches;
}
