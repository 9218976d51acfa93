/**
 * @file Time of a generated token over a cache: a base model, the same with an adapter merged into its weights, and with
 * the adapter beside them, in turns, on the CPU.
 *
 *   node --import ./scripts/typescript.js bench/generation.ts [--preset smollm2-135m] [--prompt 100] [--rounds 12]
 *     [--threads 2] [--out bench/results]
 */
import { rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Adapter } from "../src/adapter/adapter.ts";
import { initialTensor } from "../src/adapter/init.ts";
import { lora } from "../src/adapter/lora-config.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import { loadModel } from "../src/api/load-model.ts";
import { merge } from "../src/api/merge.ts";
import type { Model } from "../src/api/model.ts";
import { createDecoder, type Decoder } from "../src/generate/decoder.ts";
import { writeAtomically } from "../src/host/files.ts";
import { Random } from "../src/tensor/random.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { decodeGraph, trainableParameters, type TrainPlan } from "../src/train/plan.ts";
import { randomCheckpoint } from "./presets.ts";
import { median } from "./step-jobs.ts";

const { values: flags } = parseArgs({
  options: {
    preset: { type: "string", default: "smollm2-135m" },
    prompt: { type: "string", default: "100" },
    rounds: { type: "string", default: "12" },
    threads: { type: "string", default: "2" },
    out: { type: "string" },
  },
});
const threads = Number(flags.threads);
/** Tokens of one model in a row, before it is the next one's turn. */
const TURN = 5;

const folder = await randomCheckpoint(flags.preset, join(tmpdir(), "lorikeet-bench"));
const merged = join(tmpdir(), `lorikeet-bench-merged-${process.pid}`);
const base = await loadModel(folder, { threads });
const adapter = randomAdapter(base);
try {
  await merge(base, adapter, merged);
  const runs = [
    await start("base", base),
    await start("adapter merged", await loadModel(merged, { threads })),
    await start("adapter beside the weights", base.withAdapter(adapter)),
  ];
  for (let round = 0; round < Number(flags.rounds); round++)
    for (const run of runs) await turn(run);
  const text = page(runs);
  console.log(text);
  if (flags.out !== undefined) await writeAtomically(join(flags.out, "generation.md"), text);
  for (const run of runs) await run.dispose();
} finally {
  await rm(merged, { recursive: true, force: true });
}

interface Run {
  readonly who: string;
  readonly decoder: Decoder;
  readonly milliseconds: number[];
  dispose(): Promise<void>;
}

async function start(who: string, model: Model): Promise<Run> {
  const engine = await model.openEngine();
  const decoder = createDecoder(engine, (shape) => decodeGraph(model.plan, shape));
  await decoder.start([Array.from({ length: Number(flags.prompt) }, (_, i) => i + 1)]);
  await decoder.next([1]); // compiles
  const dispose = async (): Promise<void> => {
    await decoder.dispose();
    await engine.dispose();
  };
  return { who, decoder, milliseconds: [], dispose };
}

async function turn({ decoder, milliseconds }: Run): Promise<void> {
  for (let i = 0; i < TURN; i++) {
    const began = performance.now();
    await decoder.next([i]);
    milliseconds.push(performance.now() - began);
  }
}

/** A and B of rank 16 on all linear layers, both random. */
function randomAdapter({ checkpoint, layers, family }: Model): Adapter {
  const config = lora({ r: 16, alpha: 32, targetModules: "all-linear" });
  const plan: TrainPlan = {
    config: checkpoint.config,
    sites: resolveTargets(config, layers, family),
    trainsWeight: () => false,
    checkpointing: false,
  };
  const random = new Random(1);
  const tensors = new Map<string, Tensor>();
  for (const { name, shape } of trainableParameters(plan)) {
    const value = initialTensor(config, name!, shape, 0);
    for (let i = 0; i < value.data.length; i++) value.data[i] = 0.01 * random.normal();
    tensors.set(name!, value);
  }
  return { config, tensors };
}

function page(runs: readonly Run[]): string {
  const plain = median(runs[0]!.milliseconds);
  const lines = runs.map(({ who, milliseconds }) => {
    const time = median(milliseconds);
    const cells = [who, time.toFixed(1), (1000 / time).toFixed(1), (time / plain).toFixed(3)];
    return `| ${cells.join(" | ")} |`;
  });
  return [
    "# A generated token on the CPU",
    "",
    `${flags.preset} with random weights in f32, ${flags.prompt} tokens of prompt; medians of ${runs[0]!.milliseconds.length} tokens each, the models in turns of ${TURN} tokens. ${cpus()[0]!.model}, ${threads} threads, Node ${process.versions.node}.`,
    "",
    "| model | ms a token | tokens/s | × the base's time |",
    "| --- | --- | --- | --- |",
    ...lines,
    "",
  ].join("\n");
}
