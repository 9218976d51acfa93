/** @file Two hundred training steps beside PEFT on the same GPU, from the same adapters, on the same batches. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Adapter, decodeAdapter } from "../../src/adapter/adapter.ts";
import { resolveTargets } from "../../src/adapter/targets.ts";
import { cudaEngine, type CudaOptions } from "../../src/backends/cuda/engine.ts";
import { decodeSafetensors } from "../../src/formats/safetensors.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { causalLM } from "../../src/models/registry.ts";
import { loraCandidates } from "../../src/passes/lora.ts";
import { tensor, type Tensor } from "../../src/tensor/tensor.ts";
import { trainingGraph, type TrainPlan } from "../../src/train/plan.ts";
import { type Check, root, Skipped } from "./check.ts";
import { memoryWeights } from "../support/tiny.ts";

const STEPS = 200;
const STORYTELLER = "models/storyteller-6m";
/** Steps whose mean losses are compared. */
const WINDOW = 10;

interface Case {
  readonly name: string;
  /** A folder of the repository with weights, or a shape that gets random ones. */
  readonly base: string;
  readonly options: CudaOptions;
  /** How the peer computes what ours is compared with. */
  readonly peer: keyof Peer["losses"];
  /** Largest relative distance of the mean loss of ten steps. */
  readonly limit: number;
  /** PEFT's own distance between bf16 and float32 is allowed beside it. */
  readonly plusPeers?: boolean;
}

/** What PEFT did, and where its files are. */
interface Peer {
  readonly folder: string;
  /** By how it computed. */
  readonly losses: Readonly<Record<"bf16" | "fp32", readonly number[]>>;
  readonly learningRate: number;
}

const peers = new Map<string, Promise<Peer>>();

/** Runs PEFT once for each base; its files are what ours starts from. */
function peerOf(base: string): Promise<Peer> {
  const known = peers.get(base) ?? runPeer(base);
  peers.set(base, known);
  known.catch(() => undefined); // whoever waits for it is told
  return known;
}

async function runPeer(base: string): Promise<Peer> {
  const folder = mkdtempSync(join(tmpdir(), "curve-"));
  process.on("exit", () => {
    rmSync(folder, { recursive: true, force: true });
  });
  const from = base.includes("/") ? ["--path", join(root, base)] : ["--model", base];
  const args = [join(root, "bench/peer/peft_curve.py"), folder, ...from, "--steps", String(STEPS)];
  const errors = await pythonErrors(args);
  if (/No module named|ENOENT|no CUDA|CUDA driver/.test(errors))
    throw new Skipped(`no python3 with peft and a torch that sees the GPU: ${errors.slice(-200)}`);
  if (errors !== "") throw new Error(`PEFT failed: ${errors.slice(-800)}`);
  const { losses, lr } = JSON.parse(readFileSync(join(folder, "losses.json"), "utf8")) as {
    losses: Peer["losses"];
    lr: number;
  };
  return { folder, losses, learningRate: lr };
}

/** What a Python script says when it fails; nothing when it does not. */
function pythonErrors(args: readonly string[]): Promise<string> {
  const child = spawn("python3", args, { stdio: ["ignore", "ignore", "pipe"] });
  let text = "";
  child.stderr.on("data", (data: Buffer) => (text += data.toString()));
  return new Promise((resolve) => {
    child.on("error", (error) => {
      resolve(error.message);
    });
    child.on("close", (status) => {
      resolve(status === 0 ? "" : text || `status ${String(status)}`);
    });
  });
}

function planOf(config: HfConfig, adapter: Adapter): TrainPlan {
  const model = causalLM(config, { batch: 1, length: 1 });
  const candidates = loraCandidates([model.head(model.hidden)]);
  const sites = resolveTargets(adapter.config, candidates, { defaults: [], head: "lm_head" });
  return { config, sites, trainsWeight: () => false, checkpointing: false };
}

/** Inputs of a step on rows of tokens: every token but the first is predicted, with a loss weight of `weight` each. */
function feedsOf(ids: Int32Array, [B, T]: readonly [number, number], weight: number): Feeds {
  const rows = Array.from(ids, (_, i) => i).filter((i) => i % T < T - 1);
  const wholes = (shape: number[], values: readonly number[]): Tensor =>
    tensor("i32", shape, Int32Array.from(values));
  return {
    input_ids: tensor("i32", [B, T], ids),
    position_ids: wholes(
      [B, T],
      Array.from(ids, (_, i) => i % T),
    ),
    loss_rows: wholes([rows.length], rows),
    targets: wholes(
      [rows.length],
      rows.map((i) => ids[i + 1]!),
    ),
    loss_weights: tensor("f32", [rows.length], new Float32Array(rows.length).fill(weight)),
  };
}

type Feeds = Readonly<Record<string, Tensor>>;

/** Our losses over the same steps. */
async function trainOurs(peer: Peer, options: CudaOptions): Promise<number[]> {
  const file = (name: string): string => join(peer.folder, name);
  const adapter = await decodeAdapter(
    readFileSync(file("adapter/adapter_config.json"), "utf8"),
    readFileSync(file("adapter/adapter_model.safetensors")),
  );
  const config = JSON.parse(readFileSync(file("base/config.json"), "utf8")) as HfConfig;
  const base = await decodeSafetensors(readFileSync(file("base/model.safetensors")));
  const batches = await decodeSafetensors(readFileSync(file("batches.safetensors")));
  const ids = batches.tensors.get("ids")!;
  const [count, B, T] = ids.shape as [number, number, number];
  const engine = cudaEngine(memoryWeights(base.tensors), options);
  for (const [key, value] of adapter.tensors) await engine.set(key, value);
  const rows = B * (T - 1);
  const shape = { batch: B, length: T, rows, hasSegments: false };
  const program = await engine.compile(trainingGraph(planOf(config, adapter), shape));
  const losses: number[] = [];
  for (let step = 1; step <= STEPS; step++) {
    const start = ((step - 1) % count) * B * T;
    const batch = Int32Array.from(ids.data.subarray(start, start + B * T), Number);
    const { lossScale = 1 } = engine;
    const { loss } = await program.run(feedsOf(batch, [B, T], lossScale / rows));
    losses.push(Number(loss!.data[0]) / lossScale);
    await engine.applyGradients({
      ...{ step, lossScale, learningRate: peer.learningRate, betas: [0.9, 0.999], eps: 1e-8 },
      ...{ weightDecay: 0.01, maxGradNorm: 1 },
    });
  }
  await program.dispose();
  await engine.dispose();
  return losses;
}

/** Largest relative distance of the mean losses of ten steps, and where these begin. */
function farthest(a: readonly number[], b: readonly number[]): { distance: number; from: number } {
  const mean = (values: readonly number[], from: number): number =>
    values.slice(from, from + WINDOW).reduce((sum, value) => sum + value, 0) / WINDOW;
  let worst = { distance: 0, from: 0 };
  for (let from = 0; from < STEPS; from += WINDOW) {
    const distance = Math.abs(mean(a, from) / mean(b, from) - 1);
    if (!(distance <= worst.distance)) worst = { distance, from };
  }
  return worst;
}

const percent = (share: number): string => `${(share * 100).toFixed(2)} %`;

async function checkCurve(each: Case): Promise<string> {
  const peer = await peerOf(each.base);
  const theirs = peer.losses[each.peer];
  const ours = await trainOurs(peer, each.options);
  const { distance, from } = farthest(ours, theirs);
  const own = farthest(peer.losses.bf16, peer.losses.fp32).distance;
  const limit = each.limit + (each.plusPeers ? own : 0);
  const single = Math.max(...ours.map((loss, i) => Math.abs(loss / theirs[i]! - 1)));
  const text = `ten steps differ by at most ${percent(distance)} (from step ${from + 1}), one step by ${percent(single)}; loss ${ours[0]!.toFixed(3)} to ${ours.at(-1)!.toFixed(3)}, PEFT (${each.peer}) ${theirs[0]!.toFixed(3)} to ${theirs.at(-1)!.toFixed(3)}; PEFT's bf16 from its float32 ${percent(own)}`;
  if (!(distance <= limit)) throw new Error(`expected at most ${percent(limit)}: ${text}`);
  return text;
}

/** 16 bits at another place than PEFT's are compared with float32. */
const WIDE = [
  { name: "f16", options: { precision: "f16" }, peer: "fp32", limit: 1e-2 },
  { name: "f32", options: { precision: "f32" }, peer: "fp32", limit: 1e-2 },
] as const;

/** The small model's curve is steep: rounding moves PEFT's own by more than a percent, so it counts. FP8 is for large models. */
const CASES: readonly Case[] = [
  ...[
    { name: "bf16", options: {}, peer: "bf16", limit: 1e-2 } as const,
    ...WIDE,
    { name: "fp8", options: { quantization: "fp8" }, peer: "bf16", limit: 2e-2 } as const,
  ].map((kind) => ({ ...kind, base: "smollm2-135m", name: `smollm2-135m ${kind.name}` })),
  ...[
    { name: "bf16", options: {}, peer: "fp32", limit: 1e-2, plusPeers: true } as const,
    ...WIDE,
  ].map((kind) => ({ ...kind, base: STORYTELLER, name: `storyteller-6m ${kind.name}` })),
];

export const checks: readonly Check[] = CASES.map((each) => ({
  prepare: () => void peerOf(each.base),
  name: `curve of ${STEPS} steps beside PEFT, ${each.name}`,
  run: () => checkCurve(each),
}));
