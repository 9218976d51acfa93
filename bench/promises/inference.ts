/**
 * @file Speed of generation with the base, the merged model and the unmerged adapter, in turns, and the time to swap
 * adapters in a running engine. Reads `{ model, rank, tokens, rounds }` as JSON, prints an `InferenceResult`.
 *
 *   node --import ./scripts/typescript.js bench/promises/inference.ts '{"model":"storyteller-6m","rank":16,…}'
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Adapter } from "../../src/adapter/adapter.ts";
import { keyOf } from "../../src/adapter/attach.ts";
import { lora } from "../../src/adapter/lora-config.ts";
import { resolveTargets } from "../../src/adapter/targets.ts";
import { loadModel } from "../../src/api/load-model.ts";
import { merge } from "../../src/api/merge.ts";
import type { Model } from "../../src/api/model.ts";
import type { Engine } from "../../src/backends/backend.ts";
import { createDecoder, type Decoder } from "../../src/generate/decoder.ts";
import { loadAdapterFolder, saveAdapter } from "../../src/host/adapter-files.ts";
import { convert } from "../../src/tensor/convert.ts";
import { Random } from "../../src/tensor/random.ts";
import { sizeOf } from "../../src/tensor/shape.ts";
import { tensor, type Tensor } from "../../src/tensor/tensor.ts";
import { decodeGraph, trainableParameters } from "../../src/train/plan.ts";
import type { InferenceResult } from "./jobs.ts";

const job = JSON.parse(process.argv[2]!) as {
  model: string;
  rank: number;
  tokens: number;
  rounds: number;
};
const folder = await mkdtemp(join(tmpdir(), "lorikeet-promises-"));
const base = await loadModel(job.model);
const adapters = [1, 2].map((seed) => randomAdapter(base, seed));
await merge(base, adapters[0]!, join(folder, "merged"));
const merged = await loadModel(join(folder, "merged"));
const adapted = base.withAdapter(adapters[0]!);

const runners = {
  base: await runner(base),
  merged: await runner(merged),
  adapter: await runner(adapted),
};
const names = Object.keys(runners) as (keyof typeof runners)[];
const tokensPerSecond: Record<keyof typeof runners, number[]> = {
  base: [],
  merged: [],
  adapter: [],
};
const prompt = base.tokenizer.encode("Once upon a time there was");
const logits = new Map<string, Float32Array>();
for (let round = 0; round <= job.rounds; round++)
  for (const name of names) {
    const { decoder } = runners[name];
    let [row] = await decoder.start([prompt]);
    if (round === 0) logits.set(name, row!.slice());
    const began = performance.now();
    for (let count = 0; count < job.tokens; count++) [row] = await decoder.next([largest(row!)]);
    const seconds = (performance.now() - began) / 1000;
    // round 0 compiles
    if (round > 0) tokensPerSecond[name].push(job.tokens / seconds);
  }

await saveAdapter(adapters[1]!, join(folder, "other"));
const swapMs: number[] = [];
const readMs: number[] = [];
for (let round = 0; round < 2 * job.rounds; round++) {
  const began = performance.now();
  const read = await loadAdapterFolder(join(folder, "other"));
  readMs.push(performance.now() - began);
  swapMs.push(await swap(runners.adapter.engine, round % 2 === 0 ? read : adapters[0]!));
}
await runners.adapter.decoder.start([prompt]);

const [want, got] = [logits.get("adapter")!, logits.get("merged")!];
const scale = want.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
const difference = want.reduce((max, value, i) => Math.max(max, Math.abs(value - got[i]!)), 0);
const result: InferenceResult = {
  rank: job.rank,
  tokensPerSecond,
  swapMs,
  readMs,
  mergedDifference: difference / scale,
  modelBytes: modelBytes(base),
};
for (const { decoder, engine } of Object.values(runners)) {
  await decoder.dispose();
  await engine.dispose();
}
await rm(folder, { recursive: true });
process.stdout.write(`${JSON.stringify(result)}\n`);

async function runner(model: Model): Promise<{ engine: Engine; decoder: Decoder }> {
  const engine = await model.openEngine();
  return { engine, decoder: createDecoder(engine, (shape) => decodeGraph(model.plan, shape)) };
}

/** A and B small and random, on all linear layers but the head. */
function randomAdapter(model: Model, seed: number): Adapter {
  const config = lora({ r: job.rank, alpha: 2 * job.rank, targetModules: "all-linear" });
  const sites = resolveTargets(config, model.layers, model.family);
  const tensors = new Map<string, Tensor>();
  for (const { name, shape } of trainableParameters({ ...model.plan, sites })) {
    const random = new Random(seed).fork(name!);
    const values = Float32Array.from({ length: sizeOf(shape) }, () => 0.01 * random.normal());
    tensors.set(keyOf(name!), tensor("f32", shape, values));
  }
  return { config, tensors };
}

/** Milliseconds until all tensors of `adapter` are in the engine. */
async function swap(engine: Engine, adapter: Adapter): Promise<number> {
  const began = performance.now();
  await Promise.all(
    [...adapter.tensors].map(([name, value]) => engine.set(name, convert(value, "f32"))),
  );
  return performance.now() - began;
}

function largest(values: Float32Array): number {
  let at = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[at]!) at = i;
  return at;
}

/** Bytes of the base's weights as stored. */
function modelBytes({ checkpoint: { weights } }: Model): number {
  return weights.names.reduce((sum, name) => {
    const { shape, dtype, bytes } = weights.get(name);
    const width = dtype === "f32" ? 4 : 2;
    return sum + (bytes.kind === "file" ? bytes.length : width * sizeOf(shape));
  }, 0);
}
