/**
 * @file Fine-tunes SmolLM2-135M-Instruct on examples/first-run.jsonl and keeps all that a peer needs to do the same:
 * the adapter before the first step, the batches, the learning rates, the losses.
 *
 *   node --import ./scripts/typescript.js bench/first-run/run.ts MODEL OUT [STEPS]
 */
import { createWriteStream } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { keyOf } from "../../src/adapter/attach.ts";
import { initialTensor } from "../../src/adapter/init.ts";
import { lora } from "../../src/adapter/lora-config.ts";
import { resolveTargets } from "../../src/adapter/targets.ts";
import { loadModel } from "../../src/api/load-model.ts";
import { startRun } from "../../src/api/train.ts";
import { resolveTrainOptions } from "../../src/api/train-options.ts";
import { openTrainingData } from "../../src/api/training-data.ts";
import { saveAdapter } from "../../src/host/adapter-files.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { trainableParameters } from "../../src/train/plan.ts";

const [reference, out, steps = "210"] = process.argv.slice(2) as [string, string, string?];
await mkdir(out, { recursive: true });

const PROMPTS = [
  "Why is the sky blue?",
  "How do birds keep warm in winter?",
  "What is 12 times 8?",
  "What does const mean in TypeScript?",
  "Why does bread rise?",
  "How can I get a tea stain out of a cup?",
  "What is fog?",
  "Why do leaves turn red in autumn?",
];

const model = await loadModel(reference);
const config = lora({
  r: 8,
  alpha: 16,
  targetModules: "all-linear",
  baseModel: "SmolLM2-135M-Instruct",
});
const run = resolveTrainOptions({
  data: "examples/first-run.jsonl",
  evalData: "examples/first-run.heldout.jsonl",
  lora: config,
  maxSteps: Number(steps),
  batchSize: 4,
  perDeviceEvalBatchSize: 8,
  evalSteps: 70,
  learningRate: 3e-4,
  lrSchedulerType: "cosine",
  warmupSteps: 10,
  maxLength: 256,
  samplePrompts: PROMPTS,
  outputDir: join(out, "adapter"),
  overwrite: true,
});

const sites = resolveTargets(config, model.layers, model.family);
const parameters = trainableParameters({ ...model.plan, sites });
const tensors = new Map<string, Tensor>();
for (const { name, shape } of parameters)
  tensors.set(keyOf(name!), initialTensor(config, name!, shape, run.config.seed));
await saveAdapter({ config, tensors }, join(out, "step0"));

const data = await openTrainingData(model, run.config);
const batches = createWriteStream(join(out, "batches.jsonl"));
let count = 0;
for await (const window of data.windows(undefined)) {
  if (++count > Number(steps)) break;
  const plain = window.batches.map((batch) =>
    Object.fromEntries(
      Object.entries(batch).map(([name, { shape, data: values }]) => [
        name,
        { shape, values: [...values].map(Number) },
      ]),
    ),
  );
  batches.write(`${JSON.stringify(plain)}\n`);
}
await new Promise((resolve) => batches.end(resolve));

const events: unknown[] = [];
const began = performance.now();
for await (const event of startRun(model, run)) {
  events.push({ ...event, at: (performance.now() - began) / 1000 });
  if (event.type !== "step" || event.step % 10 === 0)
    process.stdout.write(`${JSON.stringify(event)}\n`);
}
await writeFile(
  join(out, "events.json"),
  JSON.stringify({ settings: run.config, events }, undefined, 1),
);
await model.dispose();
