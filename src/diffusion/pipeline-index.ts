/** @file What a folder in diffusers layout says of a pipeline that came from a single file. */
import type { HfConfig } from "../models/config.ts";
import { isXl, type PipelineConfigs } from "./pipeline-graphs.ts";

/** `config.json` of each model, by its folder: what diffusers and transformers need besides `configs`. */
export function singleFileConfigs(configs: PipelineConfigs): Record<string, HfConfig> {
  const texts = configs.textEncoders.map((config, i): [string, HfConfig] => [
    i === 0 ? "text_encoder" : `text_encoder_${i + 1}`,
    { architectures: [textClass(configs, i)], model_type: "clip_text_model", ...config },
  ]);
  return {
    unet: { _class_name: "UNet2DConditionModel", ...configs.unet },
    vae: { _class_name: "AutoencoderKL", in_channels: 3, out_channels: 3, ...configs.vae },
    ...Object.fromEntries(texts),
  };
}

/** `model_index.json`: the library and class of each part. */
export function pipelineIndex(
  configs: PipelineConfigs,
  scheduler: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const texts = configs.textEncoders.flatMap((_, i): [string, unknown][] => {
    const suffix = i === 0 ? "" : `_${i + 1}`;
    return [
      [`text_encoder${suffix}`, ["transformers", textClass(configs, i)]],
      [`tokenizer${suffix}`, ["transformers", "CLIPTokenizer"]],
    ];
  });
  const none = [null, null];
  return {
    _class_name: isXl(configs) ? "StableDiffusionXLPipeline" : "StableDiffusionPipeline",
    ...(isXl(configs)
      ? { force_zeros_for_empty_prompt: true }
      : { safety_checker: none, requires_safety_checker: false }),
    feature_extractor: none,
    image_encoder: none,
    scheduler: ["diffusers", scheduler["_class_name"]],
    ...Object.fromEntries(texts),
    unet: ["diffusers", "UNet2DConditionModel"],
    vae: ["diffusers", "AutoencoderKL"],
  };
}

/** The last encoder of SDXL gives pooled text, which is projected. */
function textClass(configs: PipelineConfigs, index: number): string {
  const isLast = index === configs.textEncoders.length - 1;
  return isXl(configs) && isLast ? "CLIPTextModelWithProjection" : "CLIPTextModel";
}
