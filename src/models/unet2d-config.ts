import { configError, flagField, type HfConfig, numberField, oneOf } from "./config.ts";

/** One resolution of a UNet. */
export interface UnetLevel {
  readonly channels: number;
  /** Whether its way down, and its way up, attend to the text. */
  readonly attendsDown: boolean;
  readonly attendsUp: boolean;
  readonly heads: number;
  readonly transformerLayers: number;
}

/** A UNet's `config.json`, read. */
export interface UnetConfig {
  readonly inChannels: number;
  readonly outChannels: number;
  /** From full resolution to the coarsest. */
  readonly levels: readonly UnetLevel[];
  readonly layersPerBlock: number;
  readonly groups: number;
  readonly eps: number;
  readonly textFeatures: number;
  readonly linearProjection: boolean;
  readonly flipSinToCos: boolean;
  readonly freqShift: number;
  /** SDXL: sizes and crops as waves beside the pooled text; undefined in SD 1 and 2. */
  readonly added: { readonly waveFeatures: number; readonly inputFeatures: number } | undefined;
}

/** Fields of variants that are not built, and the values that mean their absence. */
const absent: Readonly<Record<string, unknown>> = {
  center_input_sample: false,
  mid_block_only_cross_attention: null,
  class_embed_type: null,
  num_class_embeds: null,
  encoder_hid_dim: null,
  encoder_hid_dim_type: null,
  dual_cross_attention: false,
  num_attention_heads: null,
  time_embedding_dim: null,
  time_embedding_act_fn: null,
  timestep_post_act: null,
  time_cond_proj_dim: null,
  conv_in_kernel: 3,
  conv_out_kernel: 3,
  cross_attention_norm: null,
  reverse_transformer_layers_per_block: null,
  resnet_skip_time_act: false,
  resnet_out_scale_factor: 1,
  mid_block_scale_factor: 1,
  downsample_padding: 1,
};

/**
 * Reads the `config.json` of a UNet2DConditionModel.
 * @throws LorikeetError `model-config` naming every field of a variant that is not built
 */
export function unetConfig(config: HfConfig): UnetConfig {
  const faults = Object.entries(absent)
    .filter(([name, value]) => (config[name] ?? value) !== value)
    .map(([name]) => `${name} ${JSON.stringify(config[name])}`);
  if (listField(config, "only_cross_attention", 1, false).includes(true))
    faults.push("only_cross_attention true");
  if (faults.length > 0)
    throw configError(
      `Expected the UNet of Stable Diffusion 1, 2 or XL, got one with ${faults.join(", ")}`,
    );
  oneOf(config, "act_fn", ["silu", "swish"], "silu");
  oneOf(config, "time_embedding_type", ["positional"], "positional");
  oneOf(config, "resnet_time_scale_shift", ["default"], "default");
  oneOf(config, "mid_block_type", ["UNetMidBlock2DCrossAttn"], "UNetMidBlock2DCrossAttn");
  return {
    inChannels: numberField(config, "in_channels", 4),
    outChannels: numberField(config, "out_channels", 4),
    levels: levelsOf(config),
    layersPerBlock: numberField(config, "layers_per_block", 2),
    groups: numberField(config, "norm_num_groups", 32),
    eps: numberField(config, "norm_eps", 1e-5),
    textFeatures: numberField(config, "cross_attention_dim", 1280),
    linearProjection: flagField(config, "use_linear_projection", false),
    flipSinToCos: flagField(config, "flip_sin_to_cos", true),
    freqShift: numberField(config, "freq_shift", 0),
    added: addedOf(config),
  };
}

function levelsOf(config: HfConfig): UnetLevel[] {
  const channels = config["block_out_channels"] as readonly number[] | undefined;
  const count = Array.isArray(channels) ? channels.length : 0;
  const down = blockTypes(config, "down_block_types", ["CrossAttnDownBlock2D", "DownBlock2D"]);
  const up = blockTypes(config, "up_block_types", ["CrossAttnUpBlock2D", "UpBlock2D"]);
  if (count === 0 || down.length !== count || up.length !== count)
    throw configError(
      `Expected as many block_out_channels, down_block_types and up_block_types in config.json, got ${count}, ${down.length} and ${up.length}`,
    );
  const heads = listField(config, "attention_head_dim", count, 8); // its name notwithstanding, the number of heads
  const layers = listField(config, "transformer_layers_per_block", count, 1);
  return channels!.map((size, i) => ({
    channels: size,
    attendsDown: down[i]!,
    attendsUp: up[count - 1 - i]!,
    heads: heads[i]!,
    transformerLayers: layers[i]!,
  }));
}

/** For each block whether it attends to the text. */
function blockTypes(
  config: HfConfig,
  name: string,
  [attending, plain]: readonly [string, string],
): boolean[] {
  const types = config[name] as readonly string[] | undefined;
  if (!Array.isArray(types) || !types.every((type) => type === attending || type === plain))
    throw configError(
      `Expected ${name} in config.json to list ${attending} and ${plain}, got ${JSON.stringify(types)}`,
    );
  return types.map((type) => type === attending);
}

/** A field that is one value for all, or a list of them. */
function listField<T>(config: HfConfig, name: string, count: number, fallback: T): T[] {
  const value = config[name] ?? fallback;
  return Array.isArray(value) ? (value as T[]) : Array.from({ length: count }, () => value as T);
}

function addedOf(config: HfConfig): UnetConfig["added"] {
  if ((config["addition_embed_type"] ?? null) === null) return undefined;
  oneOf(config, "addition_embed_type", ["text_time"], "text_time");
  return {
    waveFeatures: numberField(config, "addition_time_embed_dim"),
    inputFeatures: numberField(config, "projection_class_embeddings_input_dim"),
  };
}
