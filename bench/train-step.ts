/**
 * @file Tokens a second, share of the machine's GEMM peak, peak memory and time to the first step of LoRA training on
 * the CPU, beside PEFT on PyTorch where a Python with both is given. Runs of one case take turns.
 *
 *   node --import ./scripts/typescript.js bench/train-step.ts [--peer python] [--only "smollm2-135m 1×512"] [--rounds 3] [--threads 2]
 *     [--out bench/results]
 */
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeAtomically } from "../src/host/files.ts";
import { randomCheckpoint } from "./presets.ts";
import { median, type PeerResult, runJson, type StepJob, type StepResult } from "./step-jobs.ts";

interface Case {
  readonly preset: string;
  readonly batch: number;
  readonly length: number;
  readonly checkpointing?: boolean;
  readonly baseDtype?: StepJob["baseDtype"];
  /** Precisions of the peer to compare with. */
  readonly peers: readonly ("fp32" | "bf16")[];
}

const cases: readonly Case[] = [
  { preset: "storyteller-6m", batch: 8, length: 256, peers: ["fp32", "bf16"] },
  // PyTorch's bf16 takes minutes a step for this model on a CPU without bf16 instructions
  { preset: "smollm2-135m", batch: 1, length: 512, peers: ["fp32"] },
  { preset: "smollm2-135m", batch: 4, length: 256, peers: ["fp32"] },
  { preset: "smollm2-135m", batch: 1, length: 512, checkpointing: true, peers: [] },
  { preset: "smollm2-135m", batch: 4, length: 256, checkpointing: true, peers: [] },
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
const peak = await runJson<{ gflops: number; shape: string }>(
  process.execPath,
  node("gemm-peak.ts", String(threads)),
);
const rows: Record<string, string | number>[] = [];
for (const one of cases) {
  const name = nameOf(one);
  if (flags.only !== undefined && flags.only !== name) continue;
  rows.push(...(await measure(one, name)));
  for (const row of rows.filter((row) => row["case"] === name)) console.log(JSON.stringify(row));
}
const text = page();
console.log(text);
if (flags.out !== undefined) await writeAtomically(join(flags.out, "train-step.md"), text);

function nameOf({ preset, batch, length, checkpointing, baseDtype }: Case): string {
  const options = [checkpointing ? "checkpointing" : "", baseDtype ?? ""].filter(Boolean);
  return `${preset} ${batch}×${length}${options.map((option) => `, ${option}`).join("")}`;
}

async function measure(one: Case, name: string): Promise<Record<string, string | number>[]> {
  const model = await randomCheckpoint(one.preset, join(tmpdir(), "lorikeet-bench"));
  const { batch, length, checkpointing = false, baseDtype = "auto" } = one;
  const steps = Number(flags.steps);
  const job: StepJob = { model, batch, length, rank: 16, checkpointing, baseDtype, threads, steps };
  const ours: StepResult[] = [];
  const peers = new Map<string, PeerResult[]>(
    flags.peer === undefined ? [] : one.peers.map((dtype) => [dtype, []]),
  );
  for (let round = 0; round < Number(flags.rounds); round++) {
    ours.push(await runJson(process.execPath, node("train-step-one.ts", JSON.stringify(job))));
    for (const [dtype, results] of peers) results.push(await runPeer(one, dtype));
  }
  const tokens = batch * length;
  const row = (who: string, seconds: number, bytes: number): Record<string, string | number> => ({
    ...{ case: name, who, "ms a step": Math.round(seconds * 1000) },
    "tokens/s": Math.round(tokens / seconds),
    "share of GEMM peak": `${((100 * ours[0]!.flops) / seconds / peak.gflops / 1e9).toFixed(0)} %`,
    "peak memory, GB": (bytes / 1e9).toFixed(2),
  });
  const least = (values: readonly number[]): number => Math.min(...values);
  const seconds = least(ours.map(({ stepSeconds }) => median(stepSeconds)));
  const result = {
    ...row("Lorikeet", seconds, Math.max(...ours.map(({ peakBytes }) => peakBytes))),
    "first step, s": least(ours.map(({ firstStepSeconds }) => firstStepSeconds)).toFixed(1),
    loss: ours[0]!.losses.at(-1)!.toFixed(4),
  };
  const others = [...peers].map(([dtype, results]) => {
    const time = least(results.map(({ ms }) => ms / 1000));
    const memory = Math.max(...results.map(({ peak_gib }) => peak_gib * 2 ** 30));
    return row(`PEFT, torch ${results[0]!.torch} ${dtype}`, time, memory);
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
    `${cpus()[0]!.model}, ${threads} threads, Node ${process.versions.node}, load ${loadavg()[0]!.toFixed(1)} before the end. GEMM peak ${peak.gflops.toFixed(0)} GFLOP/s (f32, ${peak.shape}).`,
    "Rank 16 on all linear layers, random tokens. A time is the best of the rounds' medians; FLOPs are counted as in step-jobs.ts.",
    "",
    line(columns),
    line(columns.map(() => "---")),
    ...body,
    "",
  ].join("\n");
}
