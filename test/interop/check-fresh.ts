/**
 * @file Lorikeet makes a fresh adapter for every configuration of the grid, trains it for a few steps on the case's
 * batch, saves it, and writes the logits: check_ours.py then asks PEFT for the same.
 *
 *   node --import ./scripts/typescript.js test/interop/check-fresh.ts GRID FRESH [CASE…]
 */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Adapter } from "../../src/adapter/adapter.ts";
import { evaDirections, withEvaRanks } from "../../src/adapter/init/eva.ts";
import { changesBase } from "../../src/adapter/init/initial-part.ts";
import { initialAdapter } from "../../src/adapter/initial-adapter.ts";
import { EVA_DEFAULTS, type LoraConfig } from "../../src/adapter/lora-config.ts";
import { parsePeftConfig } from "../../src/adapter/peft-config.ts";
import { plainLora } from "../../src/adapter/plain-lora.ts";
import { resolveTargets } from "../../src/adapter/targets.ts";
import { classFeeds, lossFeeds } from "../../src/api/feeds.ts";
import { createModel, type Model } from "../../src/api/model.ts";
import { serializeSafetensors } from "../../src/formats/safetensors-write.ts";
import { saveAdapter } from "../../src/host/adapter-files.ts";
import { openFolder } from "../../src/host/open-checkpoint.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { activationsGraph, countedRows, inputSources } from "../../src/train/activations.ts";
import { stepShape } from "../../src/train/plan.ts";
import { int64 } from "../../src/api/feeds.ts";
import { trainSteps } from "../support/train-steps.ts";
import { interopBase, tensorsOf } from "./peft-cases.ts";

const STEPS = 3;
const [grid, fresh, ...chosen] = process.argv.slice(2);
if (grid === undefined || fresh === undefined) {
  process.stderr.write("check-fresh.ts GRID FRESH [CASE…]\n");
  process.exit(2);
}
const all = JSON.parse(await readFile(join(grid, "grid.json"), "utf8")) as string[];
let failed = 0;
for (const name of chosen.length > 0 ? chosen : all) {
  const facts = JSON.parse(await readFile(join(grid, name, "case.json"), "utf8")) as Facts;
  if (facts.base === "conv") continue;
  try {
    process.stdout.write(`${name.padEnd(28)} ${await trainCase(facts)}\n`);
  } catch (error) {
    failed++;
    process.stdout.write(`${name.padEnd(28)} FAILED ${String(error)}\n`);
  }
}
process.exitCode = failed > 0 ? 1 : 0;

interface Facts {
  readonly name: string;
  readonly base: string;
  readonly config: Record<string, unknown>;
}

async function trainCase(facts: Facts): Promise<string> {
  const name = `fresh-${facts.name}`;
  const out = join(fresh!, name);
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  const base = createModel(await openFolder(join(import.meta.dirname, "../fixtures/models", facts.base))); // prettier-ignore
  const expected = await tensorsOf(join(grid!, facts.name, "expected.safetensors"));
  const rows = rowsOf(expected.get("input_ids")!);
  const start = await startOf(base, parsePeftConfig({ peft_type: "LORA", ...facts.config }), rows);
  const model = base.withAdapter(start);
  const { losses, adapter } = await trained(model, start, rows);
  await saveAdapter(adapter, join(out, "adapter"));
  const judge = await interopBase(facts.base, grid!, expected);
  const logits = new Map([["adapter_logits", await judge.logits(base.checkpoint, adapter)]]);
  if (changesBase(adapter.config.init) && adapter.config.init !== "loftq") {
    const sites = model.plan.sites;
    const plain = await plainLora(adapter, base.weights, { layers: base.layers, sites });
    const plainCase = `${name}-as-lora`;
    await writeCase(join(fresh!, plainCase), { ...facts, name: plainCase });
    await saveAdapter(plain, join(fresh!, plainCase, "adapter"));
    const theirs = new Map([["adapter_logits", await judge.logits(base.checkpoint, plain)]]);
    await writeFile(join(fresh!, plainCase, "ours.safetensors"), serializeSafetensors(theirs));
  }
  await writeFile(join(out, "ours.safetensors"), serializeSafetensors(logits));
  await writeCase(out, { ...facts, name });
  return losses.map((loss) => loss.toFixed(4)).join(" ");
}

async function writeCase(out: string, facts: Facts): Promise<void> {
  await mkdir(out, { recursive: true });
  const own = { ...facts, adapter_name: "default", adapter_folder: "adapter" };
  await writeFile(join(out, "case.json"), JSON.stringify(own));
}

async function startOf(
  model: Model,
  config: LoraConfig,
  rows: readonly (readonly number[])[],
): Promise<Adapter> {
  if (config.init !== "eva") return initialAdapter(config, model.base, { seed: 1 });
  const sites = resolveTargets(config, model.layers, model.family);
  const sources = inputSources(model.plan, new Set(sites.keys()));
  const layers = [...sites.values()].map(({ module, rank }) => ({ module, rank, source: sources.get(module)! })); // prettier-ignore
  const engine = await model.openEngine();
  const feeds = lossFeeds(rows, rows);
  const count = rows.length * rows[0]!.length;
  const graph = activationsGraph(model.plan, { ...stepShape(feeds), rows: count }, new Set(sources.values())); // prettier-ignore
  const program = await engine.compile(graph);
  const every = int64(
    [count],
    Array.from({ length: count }, (_, i) => i),
  );
  const found = await program.run({ ...feeds, activation_rows: every });
  const next = (names: readonly string[]) => Promise.resolve(new Map(names.map((name) => [name, countedRows(found[name]!, count)]))); // prettier-ignore
  const given = await evaDirections(layers, config.eva ?? EVA_DEFAULTS, next);
  await engine.dispose();
  return initialAdapter(withEvaRanks(config, given, sites.keys()), model.base, { seed: 1, given });
}

/** A few steps of AdamW on `rows`, at a rate that moves everything. */
async function trained(
  model: Model,
  start: Adapter,
  rows: readonly (readonly number[])[],
): Promise<{ losses: number[]; adapter: Adapter }> {
  const isClassifier = model.labels !== undefined;
  const feeds = isClassifier ? classFeeds(rows, rows.map((_, i) => [i % 3])) : lossFeeds(rows, rows); // prettier-ignore
  return trainSteps(model, start, feeds, STEPS);
}

function rowsOf({ shape, data }: Tensor): number[][] {
  const [batch, length] = shape as [number, number];
  return Array.from({ length: batch }, (_, b) => Array.from(data.subarray(b * length, (b + 1) * length) as never, Number)); // prettier-ignore
}
