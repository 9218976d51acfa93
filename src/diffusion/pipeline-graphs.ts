/** @file The models of a Stable Diffusion pipeline as graphs whose weights are named `unet.…`, `text_encoder.…`, `vae.…`. */
import type { Graph } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { decodeLatents, encodeImage } from "../models/autoencoder-kl.ts";
import { clipText } from "../models/clip-text.ts";
import type { HfConfig } from "../models/config.ts";
import { unet2dCondition } from "../models/unet2d-condition.ts";
import { concat } from "../ops/concat.ts";
import { input } from "../ops/leaf.ts";
import { reshape } from "../ops/reshape.ts";
import { type LoraCandidate, loraCandidates } from "../passes/lora.ts";
import { prefixWeights } from "../passes/prefix-weights.ts";

/** The configurations of a pipeline's models. SDXL has two text encoders. */
export interface PipelineConfigs {
  readonly unet: HfConfig;
  readonly vae: HfConfig;
  readonly textEncoders: readonly HfConfig[];
}

/** Sizes of a denoising graph: rows, latents, caption tokens. */
export interface DenoiseShape {
  readonly batch: number;
  /** Of the latents. */
  readonly height: number;
  readonly width: number;
  readonly length: number;
}

/** What the UNet is told of the text. */
export interface TextCondition {
  /** (B, T, C). */
  readonly hidden: Node;
  /** (B, P), in SDXL. */
  readonly pooled: Node | undefined;
}

const TEXT_NAMES = ["text_encoder.", "text_encoder_2."] as const;

/** Whether the UNet is SDXL's, which reads pooled text and sizes. */
export function isXl({ unet }: Pick<PipelineConfigs, "unet">): boolean {
  return (unet["addition_embed_type"] ?? null) !== null;
}

/**
 * The text encoders on token ids. SD 1 and 2: the last hidden states; SDXL: those before the last layer of both, side
 * by side, and the pooled text of the second. Inputs `input_ids` (and `input_ids_2`) (B, T), SDXL: `pooled_rows` (B).
 */
export function textCondition(
  configs: PipelineConfigs,
  { batch, length }: Pick<DenoiseShape, "batch" | "length">,
): TextCondition {
  const ids = (i: number): Node =>
    input(i === 0 ? "input_ids" : "input_ids_2", [batch, length], "i64");
  const asRows = (x: Node): Node => reshape(x, { shape: [batch, length, x.shape[1]!] });
  if (!isXl(configs)) {
    const { hidden } = clipText(configs.textEncoders[0]!, { ids: ids(0) });
    return { hidden: asRows(prefixWeights([hidden], TEXT_NAMES[0])[0]!), pooled: undefined };
  }
  const parts = configs.textEncoders.map((config, i) => {
    const isLast = i === configs.textEncoders.length - 1;
    const rows = isLast ? { pooledRows: input("pooled_rows", [batch], "i64") } : {};
    const text = clipText(config, { ids: ids(i), ...rows });
    const roots = [text.layers.at(-2)!, ...(text.pooled ? [text.pooled] : [])];
    return prefixWeights(roots, textName(configs, i));
  });
  const hidden = concat(
    parts.map(([states]) => asRows(states!)),
    { axis: 2 },
  );
  return { hidden, pooled: parts.at(-1)![1] };
}

/** A pipeline of SDXL's kind with one text encoder has the second. */
function textName(configs: PipelineConfigs, index: number): string {
  const { length } = configs.textEncoders;
  return TEXT_NAMES[index === 0 && (length > 1 || !isXl(configs)) ? 0 : 1];
}

/** The condition as inputs of a graph: `encoder_hidden_states`, and in SDXL `text_embeds`. */
export function givenCondition(
  { unet }: PipelineConfigs,
  { batch, length }: Pick<DenoiseShape, "batch" | "length">,
): TextCondition {
  const width = Number(unet["cross_attention_dim"] ?? 1280);
  const hidden = input("encoder_hidden_states", [batch, length, width]);
  if (!isXl({ unet })) return { hidden, pooled: undefined };
  const waves = Number(unet["addition_time_embed_dim"]);
  const pooled = Number(unet["projection_class_embeddings_input_dim"]) - 6 * waves;
  return { hidden, pooled: input("text_embeds", [batch, pooled]) };
}

/** What the UNet makes of the inputs `sample` (B, C, h, w) and `timestep` (B), and `time_ids` (B, 6) in SDXL. */
export function denoised(
  { unet }: PipelineConfigs,
  { hidden, pooled }: TextCondition,
  { batch, height, width }: DenoiseShape,
): Node {
  const channels = Number(unet["in_channels"] ?? 4);
  const output = unet2dCondition(unet, {
    sample: input("sample", [batch, channels, height, width]),
    timestep: input("timestep", [batch]),
    text: hidden,
    ...(pooled && { pooledText: pooled, timeIds: input("time_ids", [batch, 6]) }),
  });
  return prefixWeights([output], "unet.", TEXT_NAMES)[0]!;
}

/** Output `moments` of the input `pixels` (B, 3, H, W). */
export function encodeGraph(
  { vae }: PipelineConfigs,
  { batch, height, width }: { batch: number; height: number; width: number },
): Graph {
  const moments = encodeImage(vae, input("pixels", [batch, 3, height, width]));
  return { outputs: { moments: prefixWeights([moments], "vae.")[0]! }, gradients: {} };
}

/** Output `pixels` of the input `latents` (B, C, h, w), which are not scaled. */
export function decodeGraph(
  { vae }: PipelineConfigs,
  { batch, height, width }: { batch: number; height: number; width: number },
): Graph {
  const latents = input("latents", [batch, Number(vae["latent_channels"] ?? 4), height, width]);
  const pixels = decodeLatents(vae, latents);
  return { outputs: { pixels: prefixWeights([pixels], "vae.")[0]! }, gradients: {} };
}

/** Results that together need every weight of the pipeline, at the smallest sizes. */
export function pipelineRoots(configs: PipelineConfigs): Node[] {
  const factor = 2 ** ((configs.vae["block_out_channels"] as readonly number[]).length - 1);
  const size = { batch: 1, height: factor, width: factor };
  const images = [encodeGraph(configs, size), decodeGraph(configs, size)];
  return [...adaptableRoots(configs), ...images.flatMap(({ outputs }) => Object.values(outputs))];
}

function adaptableRoots(configs: PipelineConfigs): Node[] {
  const smallest = 2 ** (levelsOf(configs) - 1);
  const shape = { batch: 1, height: smallest, width: smallest, length: 1 };
  const text = textCondition(configs, shape);
  const output = denoised(configs, text, shape);
  return [output, text.hidden, ...(text.pooled ? [text.pooled] : [])];
}

/** Every layer of the UNet and the text encoders that LoRA can attach to, named `unet.…`, `text_encoder.…`. */
export function pipelineLayers(configs: PipelineConfigs): LoraCandidate[] {
  return loraCandidates(adaptableRoots(configs));
}

/** What text encoders compute that nothing reads: the last layer of SDXL's first. Checkpoints and adapters hold it. */
export function idleRoots(configs: PipelineConfigs): Node[] {
  return configs.textEncoders.flatMap((config, i) => {
    const { hidden } = clipText(config, { ids: input("input_ids", [1, 1], "i64") });
    return prefixWeights([hidden], textName(configs, i));
  });
}

/** Layers that no result needs. */
export function idleLayers(configs: PipelineConfigs): LoraCandidate[] {
  const used = new Set(pipelineLayers(configs).map(({ module }) => module));
  return loraCandidates(idleRoots(configs)).filter(({ module }) => !used.has(module));
}

/** Resolutions of the UNet. */
export function levelsOf({ unet }: Pick<PipelineConfigs, "unet">): number {
  return (unet["block_out_channels"] as readonly number[]).length;
}
