import { z } from "zod";
import type { ImageConfig } from "./train-config.ts";
import { count, COUNT, fieldsOf, YES_NO } from "./train-field.ts";

const image = fieldsOf("Images");
const share = z.number().min(0).max(1);
const text = z.string().min(1).nullable().default(null);

/** The settings of `task: text-to-image`. */
export const IMAGE_FIELDS: { readonly [K in keyof ImageConfig]: z.ZodType<ImageConfig[K]> } = {
  resolution: image(
    count.nullable().default(null),
    COUNT,
    "Side of the training images in pixels, a multiple of 8; they are resized and their middle cut out. Unset: what the model was made for.",
  ),
  aspect_buckets: image(
    z.boolean().default(false),
    YES_NO,
    "Keep proportions: images go into sizes of about resolution² pixels, up to 2:1, each batch of one size.",
  ),
  random_flip: image(z.boolean().default(false), YES_NO, "Mirror every second image, at random."),
  instance_prompt: image(
    text,
    "a text",
    "Caption of images that have none, as in DreamBooth: a photo of sks dog.",
    "text",
  ),
  caption_dropout: image(
    share.default(0),
    "a number from 0 to 1",
    "Share of the captions that are left empty, which keeps guidance working.",
  ),
  class_prompt: image(
    text,
    "a text",
    "Turns prior preservation on (DreamBooth): images of this caption, made by the base, are trained on as well.",
    "text",
  ),
  class_data_dir: image(
    text,
    "a folder",
    "Where those images are; missing ones are made. Unset: class-images in output_dir.",
    "text",
  ),
  num_class_images: image(count.default(100), COUNT, "How many of them."),
  prior_loss_weight: image(
    z.number().min(0).default(1),
    "a number of at least 0",
    "How much they count beside the training images.",
  ),
  snr_gamma: image(
    z.number().positive().nullable().default(null),
    "a number above 0",
    "min-SNR: times of little noise count less, from this signal-to-noise ratio on; 5 is usual.",
  ),
  noise_offset: image(
    z.number().min(0).default(0),
    "a number of at least 0",
    "Noise common to a whole channel, for darker and brighter images; 0.05 to 0.1 is usual.",
  ),
  prediction_type: image(
    z.enum(["epsilon", "v_prediction", "sample"]).nullable().default(null),
    "epsilon, v_prediction or sample",
    "What the model predicts. Unset: as its scheduler_config.json says.",
    "text",
  ),
  rescale_betas_zero_snr: image(
    z.boolean().nullable().default(null),
    YES_NO,
    "Noise that leaves nothing of the image at the last time. Unset: as the model's scheduler_config.json says.",
  ),
  train_text_encoder: image(
    z.boolean().default(false),
    YES_NO,
    "Adapt the text encoder's attention too (q_proj, k_proj, v_proj, out_proj).",
  ),
  sample_steps: image(
    count.nullable().default(null),
    COUNT,
    "Draw sample_prompts every so many steps. Unset: before and after training.",
  ),
  sample_guidance: image(
    z.number().min(0).default(7.5),
    "a number of at least 0",
    "Guidance of those images.",
  ),
};
