/**
 * @file Tokens a second, share of the machine's GEMM peak, peak memory and time to the first step of LoRA training on
 * the CPU, beside PEFT on PyTorch where a Python with both is given. The peak, Lorikeet and PEFT take turns in each
 * round, as machines get slower and faster; what is compared is of one round.
 *
 *   node --import ./scripts/typescript.js bench/train-step.ts [--peer python] [--only "smollm2-135m 1×512"] [--rounds 3] [--threads 2]
 *     [--out bench/results]
 */
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeAtomically } from "../src/host/files.ts";
import { presets, randomCheckpoint } from "./presets.ts";
import {
  built,
  median,
  type PeerResult,
  runJson,
  stepFlops,
  type StepJob,
  type StepResult,
} from "./step-jobs.ts";

interface Case {
  readonly preset: string;
  readonly batch: number;
  readonly length: number;
  readonly checkpointing?: boolean;
  readonly baseDtype?: StepJob["baseDtype"];
  readonly dropout?: number;
  readonly memory?: StepJob["memory"];
  /** Precisions of the peer to compare with. */
  readonly peers: readonly ("fp32" | "bf16")[];
}

const cases: readonly Case[] = [
  { preset: "storyteller-6m", batch: 8, length: 256, peers: ["fp32", "bf16"] },
  // PyTorch's bf16 takes minutes a step for this model on a CPU without bf16 instructions
  { preset: "smollm2-135m", batch: 1, length: 512, peers: ["fp32"] },
  { preset: "smollm2-135m", batch: 1, length: 512, memory: "packed", peers: ["fp32"] },
  { preset: "smollm2-135m", batch: 4, length: 256, peers: ["fp32"] },
  { preset: "smollm2-135m", batch: 1, length: 512, checkpointing: true, peers: [] },
  { preset: "smollm2-135m", batch: 4, length: 256, checkpointing: true, peers: [] },
  { preset: "smollm2-135m", batch: 1, length: 512, dropout: 0.05, peers: [] },
  { preset: "smollm2-135m", batch: 1, length: 512, baseDtype: "bf16", peers: [] },
  { preset: "smollm2-135m", batch: 1, length: 512, baseDtype: "int8", peers: [] },
  { preset: "smollm2-135m", batch: 1, length: 512, baseDtype: "nf4", peers: [] },
  { preset: "llama3.2-1b", batch: 1, length: 512, checkpointing: true, peers: [] },
];

const { values: flags } = parseArgs({
  options: {
    peer: { type: "string" },
    only: { type: "string" },
    rounds: { type: "string", default: "3" },
    threads: { type: "string", default: "2" },
    steps: { type: "string", default: "6" },
    out: { type: "string" },
  },
});
const threads = Number(flags.threads);
const here = (file: string): string => fileURLToPath(new URL(file, import.meta.url));
const node = (file: string, argument: string): readonly string[] => [
  ...["--import", here("../scripts/typescript.js"), here(file), argument],
];
interface Peak {
  readonly gflops: number;
  readonly shape: string;
}
const step = await built("train-step-one.ts");
const peaks: Peak[] = [];
type Row = Record<string, string | number>;
const rows: Row[] = [];
/** Losses after all steps, by model and sizes of the batch; the first case of each keeps its base in f32. */
const losses = new Map<string, number>();
for (const one of cases) {
  const name = nameOf(one);
  if (flags.only !== undefined && flags.only !== name) continue;
  rows.push(...(await measure(one, name)));
  for (const row of rows.filter((row) => row["case"] === name)) console.log(JSON.stringify(row));
}
const text = page();
console.log(text);
if (flags.out !== undefined) await writeAtomically(join(flags.out, "train-step.md"), text);

function nameOf({
  preset,
  batch,
  length,
  checkpointing,
  baseDtype,
  dropout,
  memory,
}: Case): string {
  const options = [
    ...[checkpointing ? "checkpointing" : "", baseDtype ? `base ${baseDtype}` : ""],
    dropout ? `dropout ${dropout}` : "",
    memory ?? "",
  ].filter(Boolean);
  return `${preset} ${batch}×${length}${options.map((option) => `, ${option}`).join("")}`;
}

/** What one round gave. */
interface Round {
  readonly peak: Peak;
  readonly ours: StepResult;
  readonly peers: Readonly<Record<string, PeerResult>>;
}

async function runRound(one: Case, model: string): Promise<Round> {
  const {
    batch,
    length,
    checkpointing = false,
    baseDtype = "auto",
    dropout = 0,
    memory = "fast",
  } = one;
  const sizes = { batch, length, rank: 16, threads, steps: Number(flags.steps) };
  const job: StepJob = { model, checkpointing, baseDtype, dropout, memory, ...sizes };
  const peak = await runJson<Peak>(process.execPath, node("gemm-peak.ts", String(threads)));
  const ours = await runJson<StepResult>(process.execPath, [step, JSON.stringify(job)]);
  const peers: Record<string, PeerResult> = {};
  if (flags.peer !== undefined)
    for (const dtype of one.peers) peers[dtype] = await runPeer(one, dtype);
  return { peak, ours, peers };
}

async function measure(one: Case, name: string): Promise<Row[]> {
  const model = await randomCheckpoint(one.preset, join(tmpdir(), "lorikeet-bench"));
  const rounds: Round[] = [];
  for (let round = 0; round < Number(flags.rounds); round++)
    rounds.push(await runRound(one, model));
  peaks.push(...rounds.map(({ peak }) => peak));
  const tokens = one.batch * one.length;
  const flops = stepFlops(presets[one.preset]!, one);
  const row = (who: string, secondsOf: (round: Round) => number, bytes: number[]): Row => {
    const seconds = Math.min(...rounds.map(secondsOf));
    const share = median(rounds.map((round) => flops / secondsOf(round) / round.peak.gflops / 1e9));
    return {
      ...{ case: name, who, "ms a step": Math.round(seconds * 1000) },
      "tokens/s": Math.round(tokens / seconds),
      "share of GEMM peak": `${(100 * share).toFixed(0)} %`,
      "peak memory, GB": (Math.max(...bytes) / 1e9).toFixed(2),
    };
  };
  const secondsOf = ({ ours }: Round): number => median(ours.stepSeconds);
  const [loss, group] = [
    rounds[0]!.ours.losses.at(-1)!,
    `${one.preset} ${one.batch}×${one.length}`,
  ];
  const first = losses.get(group) ?? loss;
  losses.set(group, first);
  const bytes = rounds.map(({ ours }) => ours.peakBytes);
  const result = {
    ...row("Lorikeet", secondsOf, bytes),
    "first step, s": Math.min(...rounds.map(({ ours }) => ours.firstStepSeconds)).toFixed(1),
    loss: loss.toFixed(4),
    "loss − that of f32": first === loss ? "" : (loss - first).toExponential(1),
  };
  const others = Object.entries(rounds[0]!.peers).map(([dtype, { torch }]) => {
    const peerSeconds = ({ peers }: Round): number => peers[dtype]!.ms / 1000;
    const memory = rounds.map(({ peers }) => peers[dtype]!.peak_gib * 2 ** 30);
    const ratios = rounds.map((round) => peerSeconds(round) / secondsOf(round));
    return {
      ...row(`PEFT, torch ${torch} ${dtype}`, peerSeconds, memory),
      "× Lorikeet's time": median(ratios).toFixed(2),
      "× its memory": (Math.max(...memory) / Math.max(...bytes)).toFixed(2),
    };
  });
  return [result, ...others];
}

function runPeer({ preset, batch, length }: Case, dtype: string): Promise<PeerResult> {
  const options = { model: preset, batch, seq: length, dtype, threads, steps: flags.steps };
  const args = Object.entries(options).flatMap(([key, value]) => [`--${key}`, String(value)]);
  return runJson(flags.peer!, [here("peer/peft_train.py"), "--device", "cpu", ...args]);
}

function page(): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const line = (cells: readonly (string | number)[]): string => `| ${cells.join(" | ")} |`;
  const body = rows.map((row) => line(columns.map((column) => row[column] ?? "")));
  return [
    "# A LoRA training step on the CPU",
    "",
    `${cpus()[0]!.model}, ${threads} threads, Node ${process.versions.node}, load ${loadavg()[0]!.toFixed(1)} before the end. GEMM peak ${range(peaks.map(({ gflops }) => gflops))} GFLOP/s (f32, x·Wᵀ, neither packed before).`,
    "Rank 16 on all linear layers, random tokens. A time is the best of the rounds' medians, a share or a ratio the median of the rounds'; FLOPs are counted as in step-jobs.ts. The first step is counted from the start of the process of the built package.",
    "",
    line(columns),
    line(columns.map(() => "---")),
    ...body,
    "",
  ].join("\n");
}

function range(values: readonly number[]): string {
  const [least, most] = [Math.min(...values), Math.max(...values)].map((x) => x.toFixed(0));
  return least === most ? least! : `${least} to ${most}`;
}
