/**
 * @file LoRA training steps on the GPU with random weights: `train-step-cuda <preset>[,<preset>…] [options]`. Prints one
 * JSON line a preset with milliseconds a step, tokens/s, memory and, with `--profile`, where the time goes; with
 * `--peer=python3` then PEFT's on the same machine, and how many times faster we are. Options:
 * `--batch=N --seq=N --rank=N --steps=N --layers=N --checkpointing --base-dtype=bf16|f16|fp8|int8|nf4 --deterministic
 * --weights=FILE --decode`; the peer compiles its model with `--compile`. Under mpirun or torchrun each process trains on a
 * GPU of its own, gradients are summed, and the tokens of all count; rank 0 prints.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { cudaOptions, type EngineDType } from "../src/api/open-engine.ts";
import type { CudaOptions } from "../src/backends/cuda/engine.ts";
import { readRank } from "../src/host/ranks.ts";
import { measureDecode } from "./cuda/measure-decode.ts";
import { measureStep, type StepResult } from "./cuda/measure-step.ts";
import { presets } from "./presets.ts";

/** Batch and length of each preset. */
const SIZES: Readonly<Record<string, readonly [number, number]>> = {
  "smollm2-135m": [8, 1024],
  "llama3.2-1b": [4, 2048],
  "llama3.1-8b": [2, 2048],
};

const [names = "llama3.2-1b", ...flags] = process.argv.slice(2);
const text = (key: string): string | undefined =>
  flags.find((flag) => flag.startsWith(`--${key}=`))?.slice(key.length + 3);
const option = (key: string, fallback: number): number => Number(text(key) ?? fallback);
const baseDtype = (text("base-dtype") ?? "bf16") as EngineDType;

const ranks = readRank();
const print = (line: object): void => {
  if (!ranks?.rank) console.log(JSON.stringify(line));
};

function optionsOf(): CudaOptions {
  const deterministic = flags.includes("--deterministic");
  const shared = { baseDtype, ...(ranks && { ranks }) };
  return { ...cudaOptions(shared, ranks?.local), deterministic };
}

async function measure(name: string): Promise<StepResult> {
  const sizes = SIZES[name];
  const preset = presets[name];
  if (!sizes || !preset)
    throw new RangeError(`Expected a preset of ${Object.keys(SIZES).join(", ")}, got ${name}`);
  const layers = option("layers", Number(preset["num_hidden_layers"]));
  const config = { ...preset, num_hidden_layers: layers };
  const job = {
    ...{ config, batch: option("batch", sizes[0]), length: option("seq", sizes[1]) },
    ...{ rank: option("rank", 16), steps: option("steps", 10) },
    ...{ checkpointing: flags.includes("--checkpointing"), options: optionsOf() },
    ...{ weights: text("weights"), profile: flags.includes("--profile") },
  };
  const result = await measureStep(job, ranks?.size);
  const { batch, length, rank, checkpointing } = job;
  const about = { engine: "lorikeet", model: name, layers, batch, length, rank, checkpointing };
  print({ ...about, base: baseDtype, gpus: ranks?.size ?? 1, ...result });
  if (flags.includes("--decode")) {
    const ms = await measureDecode(config, optionsOf());
    const tokensPerSecond = Math.round(1000 / ms);
    print({ model: name, decodeMs: Number(ms.toFixed(3)), tokensPerSecond });
  }
  return result;
}

/** PEFT's lines for the same presets, and the ratio of its times to ours. */
function runPeer(python: string, ours: ReadonlyMap<string, StepResult>): void {
  const script = fileURLToPath(new URL("./peer/peft_train.py", import.meta.url));
  const same = ["batch", "seq", "rank"].flatMap((key) => {
    const given = text(key);
    return given === undefined ? [] : [`--${key}`, given];
  });
  const switches = ["--checkpointing", "--compile"].filter((flag) => flags.includes(flag));
  const args = [script, "--device", "cuda", "--model", names, ...same, ...switches];
  const { stdout, stderr } = spawnSync(python, args, { encoding: "utf8" });
  const lines = stdout.split("\n").filter((line) => line.startsWith("{"));
  for (const line of lines) {
    const result = JSON.parse(line) as { model: string; ms: number };
    const ratio = Number((result.ms / ours.get(result.model)!.ms).toFixed(2));
    print({ ...result, ratio });
  }
  if (lines.length < ours.size) console.log(`peer failed: ${stderr.slice(-600)}`);
}

const results = new Map<string, StepResult>();
for (const name of names.split(",")) results.set(name, await measure(name));
const peer = text("peer");
if (peer !== undefined) runPeer(peer, results);
