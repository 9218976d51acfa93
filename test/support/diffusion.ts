import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Engine, Program, Tensors, WeightSource } from "../../src/backends/backend.ts";
import type { LoraFile } from "../../src/adapter/formats/lora-file.ts";
import { createOnnxEngine } from "../../src/backends/onnx/engine.ts";
import { decodeSafetensors } from "../../src/formats/safetensors.ts";
import { noiseSchedule } from "../../src/diffusion/noise-schedule.ts";
import { noisyFeeds } from "../../src/diffusion/noisy-batch.ts";
import type { PipelineConfigs } from "../../src/diffusion/pipeline-graphs.ts";
import { type PredictionType, schedulerConfig } from "../../src/diffusion/scheduler-config.ts";
import type { Graph } from "../../src/ir/graph.ts";
import type { HfConfig } from "../../src/models/config.ts";
import { convert, toFloat64 } from "../../src/tensor/convert.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { memoryWeights } from "./tiny.ts";

/** The folder of the Stable Diffusion fixtures. */
export const diffusionFolder: string = join(import.meta.dirname, "../fixtures/diffusion");

/** One model of a pipeline in memory, and what diffusers or transformers computes from it. */
export interface DiffusionPart {
  readonly config: HfConfig;
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly weights: WeightSource;
  readonly expected: ReadonlyMap<string, Tensor>;
}

/** Reads the model in `folder` (`sd1/unet`); `rename` gives weights the names of its graph. */
export async function diffusionPart(
  folder: string,
  rename: (name: string) => string = (name) => name,
): Promise<DiffusionPart> {
  const isText = folder.includes("text_encoder");
  const file = isText ? "model.safetensors" : "diffusion_pytorch_model.safetensors";
  const config = await readFile(join(diffusionFolder, folder, "config.json"), "utf8");
  const stored = await readTensors(join(folder, file));
  const tensors = new Map([...stored].map(([name, value]) => [rename(name), value]));
  return {
    config: JSON.parse(config) as HfConfig,
    tensors,
    weights: memoryWeights(tensors),
    expected: await readTensors(join(folder, "expected.safetensors")),
  };
}

/** The tensors of a file of the fixtures. */
export async function readTensors(path: string): Promise<ReadonlyMap<string, Tensor>> {
  return (await decodeSafetensors(await readFile(join(diffusionFolder, path)))).tensors;
}

/** A LoRA file of the fixtures with its metadata. */
export async function readLoraFile(path: string): Promise<LoraFile> {
  const { tensors, metadata } = await decodeSafetensors(
    await readFile(join(diffusionFolder, path)),
  );
  return { tensors, metadata: metadata ?? {} };
}

/** Runs `graph` once on the ONNX engine; `f32` feeds are converted, `i64` ones stay. */
export async function runOnce(
  weights: WeightSource,
  graph: Graph,
  feeds: Tensors,
): Promise<{ outputs: Record<string, Tensor>; gradients: Record<string, Tensor> }> {
  const engine: Engine = createOnnxEngine({ weights, threads: 1 });
  try {
    const program: Program = await engine.compile(graph);
    const outputs = await program.run(feeds);
    const gradients: Record<string, Tensor> = {};
    for (const name of Object.keys(graph.gradients))
      gradients[name] = await engine.get(`${name}.grad`);
    return { outputs, gradients };
  } finally {
    await engine.dispose();
  }
}

/** `tensors` of the names `names` (graph name → fixture name when they differ) as f32, ids as i64. */
export function feedsOf(
  expected: ReadonlyMap<string, Tensor>,
  names: readonly string[],
): Record<string, Tensor> {
  return Object.fromEntries(
    names.map((name) => {
      const value = expected.get(name)!;
      return [name, convert(value, name.endsWith("ids") && name !== "time_ids" ? "i64" : "f32")];
    }),
  );
}

/** The UNet of the fixture `name`, and the feeds of its graph. */
export async function unetFixture(name: string): Promise<{
  configs: PipelineConfigs;
  weights: WeightSource;
  feeds: Record<string, Tensor>;
}> {
  const { config, weights, expected } = await diffusionPart(`${name}/unet`, (key) => `unet.${key}`);
  const names = ["sample", "timestep", "encoder_hidden_states"];
  const isXl = expected.has("time_ids");
  const feeds = feedsOf(expected, [...names, ...(isXl ? ["text_embeds", "time_ids"] : [])]);
  return { configs: { unet: config, vae: {}, textEncoders: [] }, weights, feeds };
}

/** The feeds of a step on the fixture's clean latents, noise and times. */
export function trainingBatch(
  feeds: Record<string, Tensor>,
  noise: Tensor,
  prediction: PredictionType,
  weighted: boolean,
): Record<string, Tensor> {
  const schedule = noiseSchedule(
    schedulerConfig({ beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" }),
  );
  const { shape, data } = feeds["sample"]!;
  const [count, ...latents] = shape as [number, number, number, number];
  const size = data.length / count;
  const row = (value: Tensor, i: number): Float32Array =>
    (value.data as Float32Array).subarray(i * size, (i + 1) * size);
  const rows = Array.from({ length: count }, (_, i) => ({
    clean: row(feeds["sample"]!, i),
    noise: row(noise, i),
    t: Number(feeds["timestep"]!.data[i]),
    weight: 1 / count,
  }));
  const snrGamma = weighted ? 5 : undefined;
  return {
    ...feeds,
    ...noisyFeeds(rows, latents, { schedule, prediction, snrGamma, noiseOffset: 0 }),
  };
}

/** Largest absolute difference of two tensors. */
export function farthest(got: Tensor, want: Tensor): number {
  const [a, b] = [toFloat64(got), toFloat64(want)];
  if (a.length !== b.length) return Infinity;
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i]! - b[i]!));
  return Number.isNaN(largest) ? Infinity : largest;
}
