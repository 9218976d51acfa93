/** @file Configurations of published Stable Diffusion models, for checkpoints in one file, which hold none. */
import type { HfConfig } from "../models/config.ts";
import type { PipelineConfigs } from "./pipeline-graphs.ts";

/** Stable Diffusion 1.x, 2.x, XL. */
export type KnownModel = "sd1" | "sd2" | "sdxl";

const unetBase: HfConfig = {
  in_channels: 4,
  out_channels: 4,
  layers_per_block: 2,
  norm_num_groups: 32,
  block_out_channels: [320, 640, 1280, 1280],
  down_block_types: [...new Array<string>(3).fill("CrossAttnDownBlock2D"), "DownBlock2D"],
  up_block_types: ["UpBlock2D", ...new Array<string>(3).fill("CrossAttnUpBlock2D")],
};

const unets: Readonly<Record<KnownModel, HfConfig>> = {
  sd1: { ...unetBase, cross_attention_dim: 768, attention_head_dim: 8, sample_size: 64 },
  sd2: {
    ...unetBase,
    cross_attention_dim: 1024,
    attention_head_dim: [5, 10, 20, 20],
    use_linear_projection: true,
    sample_size: 96,
  },
  sdxl: {
    ...unetBase,
    block_out_channels: [320, 640, 1280],
    down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    transformer_layers_per_block: [1, 2, 10],
    attention_head_dim: [5, 10, 20],
    cross_attention_dim: 2048,
    use_linear_projection: true,
    addition_embed_type: "text_time",
    addition_time_embed_dim: 256,
    projection_class_embeddings_input_dim: 2816,
    sample_size: 128,
  },
};

const vae: HfConfig = {
  block_out_channels: [128, 256, 512, 512],
  layers_per_block: 2,
  latent_channels: 4,
  norm_num_groups: 32,
  down_block_types: new Array<string>(4).fill("DownEncoderBlock2D"),
  up_block_types: new Array<string>(4).fill("UpDecoderBlock2D"),
};

const clipL: HfConfig = {
  architectures: ["CLIPTextModel"],
  vocab_size: 49408,
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  max_position_embeddings: 77,
  hidden_act: "quick_gelu",
  eos_token_id: 2,
};

const openClip: HfConfig = {
  ...clipL,
  hidden_act: "gelu",
  // SD 2 reads the layer before the last, so the last is left out
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 23,
  num_attention_heads: 16,
};

const bigG: HfConfig = {
  ...clipL,
  architectures: ["CLIPTextModelWithProjection"],
  hidden_act: "gelu",
  hidden_size: 1280,
  intermediate_size: 5120,
  num_hidden_layers: 32,
  num_attention_heads: 20,
  projection_dim: 1280,
};

const texts: Readonly<Record<KnownModel, readonly HfConfig[]>> = {
  sd1: [clipL],
  sd2: [openClip],
  sdxl: [clipL, bigG],
};

/** The configurations of `model`. */
export function knownConfigs(model: KnownModel): PipelineConfigs {
  const scaling = model === "sdxl" ? 0.13025 : 0.18215;
  return {
    unet: unets[model],
    vae: { ...vae, scaling_factor: scaling },
    textEncoders: texts[model],
  };
}

/** What scheduler_config.json would say of `model`. */
export function knownScheduler(
  model: KnownModel,
  predictionType: string,
): Readonly<Record<string, unknown>> {
  return {
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: "scaled_linear",
    clip_sample: false,
    set_alpha_to_one: false,
    steps_offset: 1,
    prediction_type: predictionType,
    timestep_spacing: "leading",
    _class_name: model === "sdxl" ? "EulerDiscreteScheduler" : "DDIMScheduler",
  };
}
