/**
 * @file Writes docs/promises.md and docs/promises.svg from what run.ts left in bench/results.
 *
 *   node --import ./scripts/typescript.js bench/promises/page.ts bench/results/promises-storyteller-6m.json …
 */
import { readFile, writeFile } from "node:fs/promises";
import { EMBEDDED_MODELS } from "../../src/api/load-model.ts";
import { type InferenceResult, median, quantile, type Report, type TrainResult } from "./jobs.ts";
import { picture } from "./picture.ts";
import { verdicts } from "./verdicts.ts";

const reports: Report[] = [];
for (const file of process.argv.slice(2))
  reports.push(JSON.parse(await readFile(file, "utf8")) as Report);
const first = reports[0]!;
await writeFile("docs/promises.svg", picture(`${first.model}: held-out loss after ${first.steps} steps`, bestOf(first))); // prettier-ignore
await writeFile(
  "docs/promises.md",
  `# The promises of LoRA, measured

LoRA beside full fine-tuning in the same engine: the same batches, the same number of steps, AdamW, a cosine schedule.
Adapters are on all linear layers but the head, alpha twice the rank. Each run is a process of its own. Where a
rank was run with several learning rates, the lowest held-out loss counts; times are medians over the steps of all its
runs, without the first ones, in which batch sizes are compiled.

![held-out loss by rank](promises.svg)

${reports.map(section).join("\n")}
## Again

\`\`\`
${reports.map(command).join("\n")}
node --import ./scripts/typescript.js bench/promises/page.ts ${process.argv.slice(2).join(" ")}
\`\`\`
`,
);

function section(report: Report): string {
  const { model, data, steps, batchSize, maxLength, machine, loads, inference } = report;
  const best = bestOf(report);
  const load = (value: number): string => value.toFixed(1);
  return `## ${model}

${steps} steps of ${batchSize} samples of at most ${maxLength} tokens of \`examples/${data}\`; ${timedSteps(best)} are timed. ${machine}. The machine was shared:
${load(Math.min(...loads))} to ${load(Math.max(...loads))} processes wanted to run during the measurements (median ${load(median(loads))}), so times are upper
bounds: equal work differed by up to a factor of two. Losses, sizes and counts do not depend on that.

${verdicts(report, best)}

### Training

| trains | parameters | share | AdamW's moments | peak memory | ms a step (middle half) | learning rate | held-out loss | of full's gain | saved file |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
${best.map((result) => trainingRow(report, best, result)).join("\n")}

${retries(report)}Held-out loss before training: ${best[0]!.evalLosses[0]!.toFixed(3)}. Saved files are f32; peak memory is the largest resident set of the
process, the runtime and the mapped model (${mega(modelBytes(report))} MB as stored) included.

### Generation

| adapter | tokens/s base | merged | unmerged | merged / base | unmerged / base | swap, ms | read the file, ms |
| --- | --- | --- | --- | --- | --- | --- | --- |
${inference.map(inferenceRow).join("\n")}

One row, greedy, in turns; medians of ${inference[0]?.tokensPerSecond.base.length ?? 0} rounds. A swap puts the tensors of another adapter of the same rank into the running
engine; nothing is compiled again.
`;
}

/** What measures `report` again. */
function command({ model, steps, batchSize, maxLength, training }: Report): string {
  const ratesOf = (isFull: boolean): string => [...new Set(training.filter(({ rank }) => (rank === "full") === isFull).map(({ learningRate }) => learningRate))].join(); // prettier-ignore
  return `node --import ./scripts/typescript.js bench/promises/run.ts --model ${EMBEDDED_MODELS.includes(model) ? model : `FOLDER/${model}`} --full --steps ${steps} --batch ${batchSize} --length ${maxLength} --lora-rates ${ratesOf(false)} --full-rates ${ratesOf(true)}`;
}

/** The better learning rate of each rank; times of all its runs together. */
function bestOf({ training }: Report): TrainResult[] {
  const ranks = [...new Set(training.map(({ rank }) => rank))];
  return ranks.map((rank) => {
    const runs = training.filter((result) => result.rank === rank);
    const best = runs.reduce((a, b) => (b.evalLosses.at(-1)! < a.evalLosses.at(-1)! ? b : a));
    return { ...best, stepSeconds: runs.flatMap(({ stepSeconds }) => stepSeconds) };
  });
}

function trainingRow(report: Report, best: readonly TrainResult[], result: TrainResult): string {
  const { rank, trainable, total, stepSeconds, evalLosses } = result;
  const full = best.find((other) => other.rank === "full");
  const [before, after] = [evalLosses[0]!, evalLosses.at(-1)!];
  const gain = full && (100 * (before - after)) / (before - full.evalLosses.at(-1)!);
  const ms = (q: number): string => (1000 * quantile(stepSeconds, q)).toFixed(0);
  return `| ${[
    rank === "full" ? "every weight" : `rank ${rank}`,
    trainable.toLocaleString("en"),
    `${((100 * trainable) / total).toPrecision(3)} %`,
    `${mega(result.optimizerBytes)} MB`,
    `${(result.peakBytes / 1e6).toFixed(0)} MB`,
    `${ms(0.5)} (${ms(0.25)}–${ms(0.75)})`,
    result.learningRate,
    after.toFixed(3),
    gain === undefined ? "" : `${gain.toFixed(0)} %`,
    `${mega(result.fileBytes)} MB (${digits((100 * result.fileBytes) / modelBytes(report), 2)} % of the model's)`,
  ].join(" | ")} |`;
}

function inferenceRow({ rank, tokensPerSecond, swapMs, readMs }: InferenceResult): string {
  const [base, merged, adapter] = [tokensPerSecond.base, tokensPerSecond.merged, tokensPerSecond.adapter]; // prettier-ignore
  // rounds are made in turns, so a ratio of neighbours is less noisy than one of medians
  const ratio = (values: readonly number[]): string => median(values.map((value, i) => value / base[i]!)).toFixed(2); // prettier-ignore
  const cells = [`rank ${rank}`, ...[base, merged, adapter].map((values) => median(values).toFixed(0)), ratio(merged), ratio(adapter), median(swapMs).toFixed(1), median(readMs).toFixed(1)]; // prettier-ignore
  return `| ${cells.join(" | ")} |`;
}

function modelBytes({ inference }: Report): number {
  return inference[0]!.modelBytes;
}

function mega(bytes: number): string {
  return digits(bytes / 1e6, 3);
}

/** `value` with at least `count` digits, never with an exponent. */
function digits(value: number, count: number): string {
  return value >= 10 ** (count - 1) ? value.toFixed(0) : value.toPrecision(count);
}

/** How many steps of each kind the times are of. */
function timedSteps(best: readonly TrainResult[]): string {
  const counts = best.map(({ stepSeconds }) => stepSeconds.length);
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  return least === most ? `${least} of each kind` : `${least} to ${most} of each kind`;
}

/** What other learning rates gave. */
function retries(report: Report): string {
  const kept = new Set(bestOf(report).map(({ rank, learningRate }) => `${rank} ${learningRate}`));
  const others = report.training.filter((run) => !kept.has(`${run.rank} ${run.learningRate}`));
  const texts = others.map(({ rank, learningRate, evalLosses }) => `${rank === "full" ? "every weight" : `rank ${rank}`} at ${learningRate}: ${evalLosses.at(-1)!.toFixed(3)}`); // prettier-ignore
  if (texts.length === 0) return "";
  return `Other learning rates: ${texts.join(", ")}. Ranks that are not named here were run with one rate only, so a gap may be partly the rate's.\n\n`;
}
