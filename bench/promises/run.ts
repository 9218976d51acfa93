/**
 * @file LoRA beside full fine-tuning: trains adapters of several ranks, and every weight, for as many steps on the same
 * batches, each in a process of its own and with two learning rates; then measures generation and swapping. Writes
 * bench/results/promises-MODEL.json, which page.ts makes docs/promises.md from.
 *
 *   node --import ./scripts/typescript.js bench/promises/run.ts [--model storyteller-6m] [--data FILE --eval-data FILE]
 *     [--steps 40] [--batch 8] [--length 256] [--ranks 1,2,4,8,16,64] [--full] [--minutes 30]
 */
import { mkdir, writeFile } from "node:fs/promises";
import { availableParallelism, cpus } from "node:os";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { inProcess, type InferenceResult, load, type Report, type TrainJob, type TrainResult } from "./jobs.ts"; // prettier-ignore

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "storyteller-6m" },
    data: { type: "string", default: "examples/lorikeet-chat.jsonl" },
    "eval-data": { type: "string", default: "examples/lorikeet-chat.heldout.jsonl" },
    steps: { type: "string", default: "40" },
    batch: { type: "string", default: "8" },
    length: { type: "string", default: "256" },
    ranks: { type: "string", default: "1,2,4,8,16,64" },
    "lora-rates": { type: "string", default: "1e-2,5e-3" },
    "full-rates": { type: "string", default: "1e-3,3e-3" },
    tokens: { type: "string", default: "64" },
    rounds: { type: "string", default: "7" },
    minutes: { type: "string", default: "30" },
    full: { type: "boolean", default: false },
    name: { type: "string" },
  },
});
const numbers = (text: string): number[] => text.split(",").map(Number);
const sizes: (number | "full")[] = [...numbers(values.ranks), ...(values.full ? (["full"] as const) : [])]; // prettier-ignore

const loads = [load()];
const inference: InferenceResult[] = [];
for (const rank of sizes.filter((size) => size === 8 || size === 64)) {
  const job = { model: values.model, rank, tokens: Number(values.tokens), rounds: Number(values.rounds) }; // prettier-ignore
  inference.push(await inProcess<InferenceResult>("inference.ts", job));
  loads.push(load());
}
const training: TrainResult[] = [];
const rates = [numbers(values["lora-rates"]), numbers(values["full-rates"])] as const;
const end = performance.now() + 60_000 * Number(values.minutes);
for (let attempt = 0; attempt < Math.max(rates[0].length, rates[1].length); attempt++)
  for (const rank of sizes) {
    const learningRate = rates[rank === "full" ? 1 : 0][attempt];
    // every rank is tried once; further learning rates as time allows
    if (learningRate === undefined || (attempt > 0 && performance.now() > end)) continue;
    const job: TrainJob = {
      model: values.model,
      rank,
      learningRate,
      steps: Number(values.steps),
      batchSize: Number(values.batch),
      maxLength: Number(values.length),
      data: values.data,
      evalData: values["eval-data"],
    };
    const result = await inProcess<TrainResult>("train-one.ts", job);
    training.push(result);
    loads.push(load());
    process.stdout.write(
      `rank ${rank}, rate ${learningRate}: held-out ${result.evalLosses.at(-1)!.toFixed(4)}\n`,
    );
  }
const report: Report = {
  model: values.name ?? basename(values.model),
  data: basename(values.data),
  steps: Number(values.steps),
  batchSize: Number(values.batch),
  maxLength: Number(values.length),
  machine: `${cpus()[0]!.model}, ${availableParallelism()} threads, Node.js ${process.version}`,
  loads,
  training,
  inference,
};
await mkdir("bench/results", { recursive: true });
const file = `bench/results/promises-${report.model}.json`;
await writeFile(file, `${JSON.stringify(report, undefined, 1)}\n`);
process.stdout.write(`${file}\n`);
