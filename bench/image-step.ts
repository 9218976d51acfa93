/**
 * @file One LoRA training step of a UNet: `image-step sd15|sdxl|picturebook [options]`, random weights for sd15 and sdxl.
 * Prints one JSON line with milliseconds a step, images/s and memory; with `--peer=python3` another for diffusers + PEFT
 * on the same machine (on the GPU eager, with `--compiled` also compiled), and how many times faster we are. Options:
 * `--engine=cuda|onnx --batch=N --size=N (latents) --rank=N --steps=N --checkpointing --profile --threads=N`.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { loadPipeline } from "../src/api/image-pipeline.ts";
import type { Engine, Program, Tensors, WeightSource } from "../src/backends/backend.ts";
import { type CudaEngine, cudaEngine } from "../src/backends/cuda/engine.ts";
import type { CudaProgram } from "../src/backends/cuda/program.ts";
import { createOnnxEngine } from "../src/backends/onnx/engine.ts";
import { knownConfigs } from "../src/diffusion/known-configs.ts";
import { type DenoiseShape, isXl, pipelineLayers, type PipelineConfigs } from "../src/diffusion/pipeline-graphs.ts"; // prettier-ignore
import { type Graph, rootsOf, topological } from "../src/ir/graph.ts";
import type { Node } from "../src/ir/node.ts";
import { isFrozen, leaves } from "../src/ops/leaf.ts";
import { lora } from "../src/adapter/lora-config.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import { Random } from "../src/tensor/random.ts";
import { type Shape, sizeOf } from "../src/tensor/shape.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";
import { IMAGE_TARGETS, imageTrainingGraph } from "../src/train/image-plan.ts";
import { randomSource } from "./cuda/random-source.ts";

/** A UNet, where its weights come from, and the sizes of a batch. */
interface Job {
  readonly configs: PipelineConfigs;
  readonly weights: WeightSource | undefined;
  readonly shape: DenoiseShape;
}

const [name = "sd15", ...flags] = process.argv.slice(2);
const text = (key: string): string | undefined =>
  flags.find((flag) => flag.startsWith(`--${key}=`))?.slice(key.length + 3);
const option = (key: string, fallback: number): number => Number(text(key) ?? fallback);
const isOnCuda = (text("engine") ?? "cuda") === "cuda";
const isCheckpointed = flags.includes("--checkpointing");
const [rank, steps] = [option("rank", 16), option("steps", 10)];
const job = await jobOf(name);
const { shape } = job;

async function jobOf(preset: string): Promise<Job> {
  const sized = (side: number, batch: number, length: number): DenoiseShape => {
    const size = option("size", side);
    return { batch: option("batch", batch), height: size, width: size, length };
  };
  if (preset === "picturebook") {
    const { checkpoint } = await loadPipeline("picturebook-7m");
    return { ...checkpoint, shape: sized(16, 8, checkpoint.tokenizers[0]!.length) };
  }
  const known = ({ sd15: "sd1", sdxl: "sdxl" } as const)[preset];
  if (!known) throw new Error(`Expected sd15, sdxl or picturebook, got ${preset}`);
  const side = known === "sdxl" ? 128 : 64;
  return { configs: knownConfigs(known), weights: undefined, shape: sized(side, 4, 77) };
}

function buildGraph(): Graph {
  const config = lora({ r: rank, alpha: rank, targetModules: [...IMAGE_TARGETS] });
  const layers = pipelineLayers(job.configs).filter(({ module }) => module.startsWith("unet."));
  const sites = resolveTargets(config, layers, { defaults: IMAGE_TARGETS, head: "" });
  return imageTrainingGraph({ configs: job.configs, sites, checkpointing: isCheckpointed }, shape);
}

/** Values of every input of `graph`: normal numbers, times of training, weights of the mean. */
function feedsOf(graph: Graph): Tensors {
  const random = new Random(2);
  const inputs = topological(rootsOf(graph)).filter(({ op }) => op === leaves.input);
  const value = ({ name: key, shape: sizes }: Node): Tensor => {
    const make: Readonly<Record<string, () => number>> = {
      timestep: () => random.integer(1000),
      loss_weights: () => 1 / shape.batch,
      time_ids: () => 1024,
    };
    const one = make[key!] ?? ((): number => random.normal());
    return tensor("f32", sizes, Float32Array.from({ length: sizeOf(sizes) }, one));
  };
  return Object.fromEntries(inputs.map((node) => [node.name!, value(node)]));
}

async function setAdapters(engine: Engine, graph: Graph): Promise<void> {
  const random = new Random(3);
  for (const { name: key, shape: sizes } of topological(rootsOf(graph))) {
    if (key === undefined || !(key in graph.gradients)) continue;
    const deviation = key.includes("lora_A") ? 1 / rank : 0;
    const values = Float32Array.from({ length: sizeOf(sizes) }, () => deviation * random.normal());
    await engine.set(key, tensor("f32", sizes, values));
  }
}

async function measure(
  engine: Engine,
  program: Program,
  feeds: Tensors,
): Promise<{ ms: number; losses: number[] }> {
  const losses: number[] = [];
  const walls: number[] = [];
  const update = { learningRate: 1e-4, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 } as const; // prettier-ignore
  for (let step = 1; step <= steps + 3; step++) {
    const from = performance.now();
    const { loss } = await program.run(feeds);
    await engine.applyGradients({ step, ...update });
    walls.push(performance.now() - from);
    losses.push(Number(loss!.data[0]));
  }
  return { ms: median(walls.slice(3)), losses };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

const graph = buildGraph();
const frozen = topological(rootsOf(graph)).filter(isFrozen);
const shapes = new Map<string, Shape>(frozen.map((node) => [node.name!, node.shape]));
const weights = job.weights ?? randomSource(shapes);
const engine = isOnCuda
  ? cudaEngine(weights)
  : createOnnxEngine({ weights, threads: option("threads", 2) });
const gpu = isOnCuda ? (engine as CudaEngine) : undefined;
const free = gpu?.device.free() ?? 0;
await setAdapters(engine, graph);
const began = performance.now();
const program = await engine.compile(graph);
const compiled = performance.now();
const { ms, losses } = await measure(engine, program, feedsOf(graph));
const onGpu = gpu ? (program as CudaProgram) : undefined;
const rounded = (value: number): number => Number(value.toFixed(2));
console.log(
  JSON.stringify({
    engine: "lorikeet",
    device: gpu?.device.info.name ?? "cpu",
    unet: isXl(job.configs) ? "sdxl" : name,
    ...shape,
    rank,
    checkpointing: isCheckpointed,
    ms: rounded(ms),
    imagesPerSecond: rounded((shape.batch * 1000) / ms),
    compileMs: Math.round(compiled - began),
    ...(gpu &&
      onGpu && {
        gpuMs: rounded(median(Array.from({ length: 3 }, () => onGpu.time()))),
        usedGiB: rounded((free - gpu.device.free()) / 2 ** 30),
        arenaGiB: rounded(onGpu.arenaBytes / 2 ** 30),
        weightsGiB: rounded(gpu.memory().weights / 2 ** 30),
      }),
    ...(!gpu && { residentGiB: rounded(process.memoryUsage().rss / 2 ** 30) }),
    losses: losses.map((value) => Number(value.toFixed(5))),
    ...(onGpu && flags.includes("--profile") && { profile: profileOf(onGpu) }),
  }),
);
await program.dispose();
await engine.dispose();
if (text("peer") !== undefined) runPeer(text("peer")!);

/** Time of each kind of unit, largest first. */
function profileOf(cuda: CudaProgram): Record<string, string> {
  const sorted = [...cuda.profile()].sort((a, b) => b.milliseconds - a.milliseconds).slice(0, 40);
  return Object.fromEntries(
    sorted.map(({ name: unit, count, milliseconds }) => [unit, `${milliseconds.toFixed(2)} ms in ${count}`]), // prettier-ignore
  );
}

function runPeer(python: string): void {
  const script = fileURLToPath(new URL("./peer/image_train.py", import.meta.url));
  const { batch, height, length } = shape;
  const threads = isOnCuda ? {} : { threads: option("threads", 2) };
  const sizes = { unet: name, batch, size: height, text: length, rank, steps, ...threads };
  const shared = Object.entries(sizes).flatMap(([key, value]) => [`--${key}`, String(value)]);
  const common = [script, "--device", isOnCuda ? "cuda" : "cpu", ...shared, ...(isCheckpointed ? ["--checkpointing"] : [])]; // prettier-ignore
  for (const extra of flags.includes("--compiled") ? [[], ["--compile"]] : [[]]) {
    const { stdout, stderr } = spawnSync(python, [...common, ...extra], { encoding: "utf8" });
    const line = stdout.trim().split("\n").at(-1) ?? "";
    if (line.startsWith("{")) {
      const result = JSON.parse(line) as { ms: number };
      console.log(JSON.stringify({ ...result, ratio: rounded(result.ms / ms) }));
    } else console.log(`peer failed: ${stderr.slice(-600)}`);
  }
}
