import type { PredictionType } from "../diffusion/scheduler-config.ts";
import type { LoraSettings } from "./lora-settings.ts";
import type { ScheduleName } from "../train/schedule.ts";

/** Settings of a training run, named as in PEFT, transformers and diffusers. `null` means: decided by the run itself. */
export interface TrainConfig extends LoraSettings, ImageConfig {
  task: "text-generation" | "text-classification" | "text-to-image";
  model: string;
  data: string[];
  eval_data: string[];
  validation_split: number;
  output_dir: string;
  resume: boolean;
  overwrite: boolean;
  report: boolean;
  max_length: number;
  packing: boolean;
  train_on: "completion" | "prompt" | "all";
  skip_bad_rows: boolean;
  labels: string[] | null;
  num_train_epochs: number;
  max_steps: number;
  per_device_train_batch_size: number;
  gradient_accumulation_steps: number;
  optim: "adamw" | "lorafa";
  learning_rate: number;
  loraplus_lr_ratio: number | null;
  loraplus_lr_embedding: number;
  lr_scheduler_type: ScheduleName;
  warmup_steps: number;
  warmup_ratio: number;
  weight_decay: number;
  adam_beta1: number;
  adam_beta2: number;
  adam_epsilon: number;
  max_grad_norm: number;
  seed: number;
  per_device_eval_batch_size: number;
  eval_steps: number | null;
  early_stopping_patience: number | null;
  load_best_model_at_end: boolean;
  sample_prompts: string[];
  logging_steps: number;
  save_steps: number | null;
  save_total_limit: number;
  gradient_checkpointing: boolean;
  checkpointing: "auto" | "on" | "off";
  base_dtype: "auto" | "f32" | "bf16" | "f16" | "fp8" | "int8" | "nf4";
  memory: "fast" | "lean" | "packed";
  check_memory: boolean;
  device: string;
  threads: number | null;
}

/** Settings of `task: text-to-image` alone. */
export interface ImageConfig {
  resolution: number | null;
  aspect_buckets: boolean;
  random_flip: boolean;
  instance_prompt: string | null;
  caption_dropout: number;
  class_prompt: string | null;
  class_data_dir: string | null;
  num_class_images: number;
  prior_loss_weight: number;
  snr_gamma: number | null;
  noise_offset: number;
  prediction_type: PredictionType | null;
  rescale_betas_zero_snr: boolean | null;
  train_text_encoder: boolean;
  sample_steps: number | null;
  sample_guidance: number;
}

/** How a flag's text becomes a value: as it stands, split at commas, or read as YAML. */
export type FlagReading = "text" | "list" | "pattern" | "yaml";

/** What is said about a field beside its type. */
export interface FieldInfo {
  readonly group:
    "Run" | "LoRA" | "Data" | "Images" | "Optimization" | "Evaluation and saving" | "Machine";
  /** Finishes "Expected ‹key› to be …". */
  readonly expects: string;
  readonly description: string;
  readonly reading: FlagReading;
}
