import type { Engine, Program, Tensors } from "../backends/backend.ts";
import { keptPrograms } from "../backends/kept-programs.ts";
import { encodeCaption } from "../data/clip-tokenizer.ts";
import {
  decodeGraph,
  denoised,
  type DenoiseShape,
  encodeGraph,
  givenCondition,
  isXl,
  textCondition,
} from "../diffusion/pipeline-graphs.ts";
import type { Graph } from "../ir/graph.ts";
import { pooledPosition } from "../models/clip-text.ts";
import { toFloat32 } from "../tensor/convert.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { int64 } from "./feeds.ts";
import type { ImagePipeline } from "./image-pipeline.ts";

/** Runs the models of a pipeline; programs are kept by the sizes that they were compiled for. */
export interface ImageSession {
  readonly engine: Engine;
  /** The UNet's condition for `captions`: feeds with a row for each. */
  condition(captions: readonly string[]): Promise<Record<string, Tensor>>;
  /** The UNet for `shape`: feeds `sample`, `timestep` and a condition, output `output`. */
  denoiser(shape: DenoiseShape): Promise<Program>;
  /** Moments (B, 2·C, h, w) of pixels (B, 3, H, W) in [−1, 1]. */
  encode(pixels: Tensor): Promise<Tensor>;
  /** Pixels (B, 3, H, W) of latents (B, C, h, w) as the UNet knows them, that is scaled. */
  decode(latents: Tensor): Promise<Tensor>;
  dispose(): Promise<void>;
}

/** Opens a session of `pipeline`; the caller disposes it. */
export async function openImageSession(pipeline: ImagePipeline): Promise<ImageSession> {
  const { configs } = pipeline.checkpoint;
  const engine = await pipeline.openEngine();
  const programs = keptPrograms();
  const program = (kind: string, sizes: object, graph: () => Graph): Promise<Program> =>
    programs.get(`${kind} ${JSON.stringify(sizes)}`, () => engine.compile(graph()));
  return {
    engine,
    async condition(captions) {
      const ids = captionFeeds(pipeline, captions);
      const length = ids["input_ids"]!.shape[1]!;
      const shape = { batch: captions.length, length };
      const text = await program("text", shape, () => conditionGraph(pipeline, shape));
      return text.run(ids);
    },
    denoiser: (shape) => program("denoise", shape, () => denoiseGraph(pipeline, shape)),
    async encode(pixels) {
      const [batch, , height, width] = pixels.shape as [number, number, number, number];
      const shape = { batch, height, width };
      const encoder = await program("encode", shape, () => encodeGraph(configs, shape));
      return (await encoder.run({ pixels }))["moments"]!;
    },
    async decode(latents) {
      const [batch, , height, width] = latents.shape as [number, number, number, number];
      const shape = { batch, height, width };
      const decoder = await program("decode", shape, () => decodeGraph(configs, shape));
      const scale = 1 / scalingFactor(pipeline);
      const plain = toFloat32(latents).map((value) => value * scale);
      return (await decoder.run({ latents: tensor("f32", latents.shape, plain) }))["pixels"]!;
    },
    async dispose() {
      await engine.dispose();
    },
  };
}

/** What latents are multiplied by for the UNet. */
export function scalingFactor({ checkpoint }: ImagePipeline): number {
  return Number(checkpoint.configs.vae["scaling_factor"] ?? 0.18215);
}

/** Token ids of `captions` for each text encoder, and in SDXL the rows that stand for the captions. */
export function captionFeeds(
  { checkpoint }: ImagePipeline,
  captions: readonly string[],
): Record<string, Tensor> {
  const { configs, tokenizers } = checkpoint;
  const feeds: Record<string, Tensor> = {};
  for (const [i, { tokenizer, length, padId }] of tokenizers.entries()) {
    const rows = captions.map((text) => encodeCaption(tokenizer, text, { length, padId }).ids);
    const shape = [captions.length, length];
    feeds[i === 0 ? "input_ids" : "input_ids_2"] = int64(shape, rows.flat());
    if (!isXl(configs) || i < tokenizers.length - 1) continue;
    const config = configs.textEncoders[i]!;
    const ends = rows.map((ids, row) => row * length + pooledPosition(ids, config));
    feeds["pooled_rows"] = int64([captions.length], ends);
  }
  return feeds;
}

/** SDXL's sizes: original height and width, top and left of the crop, height and width, for one row. */
export function timeIds({ checkpoint }: ImagePipeline, sizes: readonly number[]): Tensors {
  if (!isXl(checkpoint.configs)) return {};
  return { time_ids: tensor("f32", [1, 6], Float32Array.from(sizes)) };
}

function conditionGraph(
  pipeline: ImagePipeline,
  shape: Pick<DenoiseShape, "batch" | "length">,
): Graph {
  const { hidden, pooled } = textCondition(pipeline.checkpoint.configs, shape);
  const [adapted, end] = pipeline.adapt([hidden, ...(pooled ? [pooled] : [])]);
  return {
    outputs: { encoder_hidden_states: adapted!, ...(end && { text_embeds: end }) },
    gradients: {},
  };
}

function denoiseGraph(pipeline: ImagePipeline, shape: DenoiseShape): Graph {
  const { configs } = pipeline.checkpoint;
  const [output] = pipeline.adapt([denoised(configs, givenCondition(configs, shape), shape)]);
  return { outputs: { output: output! }, gradients: {} };
}
