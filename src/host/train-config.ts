import type { ScheduleName } from "../train/schedule.ts";

/** Settings of a training run, named as in PEFT and transformers. `null` means: decided by the run itself. */
export interface TrainConfig {
  model: string;
  data: string[];
  eval_data: string[];
  validation_split: number;
  output_dir: string;
  resume: boolean;
  overwrite: boolean;
  report: boolean;
  r: number;
  lora_alpha: number;
  lora_dropout: number;
  target_modules: string | string[];
  exclude_modules: string | string[] | null;
  layers_to_transform: number[] | null;
  rank_pattern: Record<string, number>;
  alpha_pattern: Record<string, number>;
  use_rslora: boolean;
  use_dora: boolean;
  init_lora_weights: true | "gaussian";
  max_length: number;
  packing: boolean;
  train_on: "completion" | "prompt" | "all";
  skip_bad_rows: boolean;
  num_train_epochs: number;
  max_steps: number;
  per_device_train_batch_size: number;
  gradient_accumulation_steps: number;
  learning_rate: number;
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
  base_dtype: "auto" | "f32" | "bf16" | "int8" | "nf4";
  device: string;
  threads: number | null;
}

/** How a flag's text becomes a value: as it stands, split at commas, or read as YAML. */
export type FlagReading = "text" | "list" | "pattern" | "yaml";

/** What is said about a field beside its type. */
export interface FieldInfo {
  readonly group: "Run" | "LoRA" | "Data" | "Optimization" | "Evaluation and saving" | "Machine";
  /** Finishes "Expected ‹key› to be …". */
  readonly expects: string;
  readonly description: string;
  readonly reading: FlagReading;
}
