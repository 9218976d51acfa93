import { z } from "zod";
import { SCHEDULES } from "../train/schedule.ts";
import { IMAGE_FIELDS } from "./image-fields.ts";
import { LORA_FIELDS } from "./lora-fields.ts";
import type { FieldInfo, TrainConfig } from "./train-config.ts";
import { count, COUNT, fieldsOf, TEXTS, YES_NO } from "./train-field.ts";

const texts = z.union([
  z
    .string()
    .min(1)
    .transform((text) => [text]),
  z.array(z.string().min(1)),
]);

const run = fieldsOf("Run");
const data = fieldsOf("Data");
const optimization = fieldsOf("Optimization");
const evaluation = fieldsOf("Evaluation and saving");
const machine = fieldsOf("Machine");

/** Type, default, meaning and error text of every setting: what flags, files, `--help` and docs are made from. */
export const TRAIN_FIELDS: { readonly [K in keyof TrainConfig]: z.ZodType<TrainConfig[K]> } = {
  task: run(
    z.enum(["text-generation", "text-classification", "text-to-image"]).default("text-generation"),
    "text-generation, text-classification or text-to-image",
    "What the model makes. text-classification: an encoder (bert, roberta, modernbert) on rows of text and label. text-to-image has other defaults: model picturebook-7m, target_modules to_q, to_k, to_v, to_out.0.",
    "text",
  ),
  model: run(
    z.string().min(1).default("storyteller-6m"),
    "a text",
    "Base model: a Hugging Face id, a folder, a .gguf file, or the embedded storyteller-6m. Images: a Stable Diffusion folder in diffusers layout, a .safetensors file, or the embedded picturebook-7m.",
    "text",
  ),
  data: run(
    texts.refine((paths) => paths.length > 0),
    TEXTS,
    "Training data: files or folders (.jsonl, .json, .csv, .parquet, .txt), or - for standard input. Images: folders with metadata.jsonl (file_name, text) or a .txt beside each image.",
    "list",
  ),
  eval_data: run(texts.default([]), TEXTS, "Evaluation data, in the same formats.", "list"),
  validation_split: run(
    z.number().min(0).lt(1).default(0),
    "a number from 0 to below 1",
    "Share of the training data held out for evaluation, when there is no eval_data.",
  ),
  output_dir: run(
    z.string().min(1).default("out"),
    "a text",
    "Folder for the adapter, checkpoints, metrics and report.",
    "text",
  ),
  resume: run(
    z.boolean().default(false),
    YES_NO,
    "Continue the run in output_dir from its last checkpoint.",
  ),
  overwrite: run(
    z.boolean().default(false),
    YES_NO,
    "Replace what an earlier run left in output_dir.",
  ),
  report: run(z.boolean().default(true), YES_NO, "Write report.html and loss.svg at the end."),

  ...LORA_FIELDS,

  max_length: data(
    z.int().min(2).default(1024),
    "a whole number of at least 2",
    "Longest sample in tokens; longer ones are cut and counted.",
  ),
  packing: data(
    z.boolean().default(false),
    YES_NO,
    "Several samples in one row, kept apart by the attention mask.",
  ),
  train_on: data(
    z.enum(["completion", "prompt", "all"]).default("completion"),
    "completion, prompt or all",
    "Tokens that count in the loss: answers, prompts, or both.",
  ),
  skip_bad_rows: data(
    z.boolean().default(false),
    YES_NO,
    "Leave out rows that cannot be read, and count them, instead of stopping.",
  ),

  labels: data(
    z.array(z.string()).min(2).nullable().default(null),
    "a list of at least two labels",
    "With task: text-classification, the classes in the order of their numbers; unset: those of the data, sorted.",
    "list",
  ),

  ...IMAGE_FIELDS,

  num_train_epochs: optimization(
    z.number().positive().default(3),
    "a number above 0",
    "Passes over the data.",
  ),
  max_steps: optimization(
    z.union([z.literal(-1), count]).default(-1),
    "a whole number of at least 1, or -1",
    "Stop after this many steps, whatever num_train_epochs says; -1: no such limit.",
  ),
  per_device_train_batch_size: optimization(count.default(4), COUNT, "Samples computed at once."),
  gradient_accumulation_steps: optimization(
    count.default(1),
    COUNT,
    "Batches summed before each step.",
  ),
  optim: optimization(
    z.enum(["adamw", "lorafa"]).default("adamw"),
    "adamw or lorafa",
    "adamw; or lorafa (LoRA-FA): A stays as it is, B takes the step closest to full fine-tuning's.",
    "text",
  ),
  learning_rate: optimization(
    z.number().positive().default(2e-4),
    "a number above 0",
    "Peak learning rate of AdamW.",
  ),
  loraplus_lr_ratio: optimization(
    z.number().positive().nullable().default(null),
    "a number above 0",
    "LoRA+: learning rate of B over that of A; 16 in the paper.",
  ),
  loraplus_lr_embedding: optimization(
    z.number().min(0).default(1e-6),
    "a number of at least 0",
    "LoRA+: learning rate of adapters of embeddings.",
  ),
  lr_scheduler_type: optimization(
    z.enum(SCHEDULES).default("linear"),
    SCHEDULES.join(", ").replace(/, (\w+)$/, " or $1"),
    "How the learning rate falls after warm-up.",
    "text",
  ),
  warmup_steps: optimization(
    z.int().min(0).default(0),
    "a whole number of at least 0",
    "Steps in which the learning rate rises from 0.",
  ),
  warmup_ratio: optimization(
    z.number().min(0).max(1).default(0),
    "a number from 0 to 1",
    "The same as a share of all steps.",
  ),
  weight_decay: optimization(
    z.number().min(0).default(0),
    "a number of at least 0",
    "Decoupled weight decay of AdamW.",
  ),
  adam_beta1: optimization(
    z.number().min(0).lt(1).default(0.9),
    "a number from 0 to below 1",
    "Decay of AdamW's first moment.",
  ),
  adam_beta2: optimization(
    z.number().min(0).lt(1).default(0.999),
    "a number from 0 to below 1",
    "Decay of AdamW's second moment.",
  ),
  adam_epsilon: optimization(
    z.number().positive().default(1e-8),
    "a number above 0",
    "Added to AdamW's denominator.",
  ),
  max_grad_norm: optimization(
    z.number().min(0).default(1),
    "a number of at least 0",
    "Gradients longer than this are scaled down; 0: never.",
  ),
  seed: optimization(
    z
      .int()
      .min(0)
      .max(2 ** 32 - 1)
      .default(42),
    "a whole number from 0 to 4294967295",
    "Start of every random choice: the same seed gives the same adapter.",
  ),

  per_device_eval_batch_size: evaluation(
    count.default(8),
    COUNT,
    "Samples computed at once in evaluation.",
  ),
  eval_steps: evaluation(
    count.nullable().default(null),
    COUNT,
    "Evaluate every so many steps; unset: after each epoch, when there is evaluation data.",
  ),
  early_stopping_patience: evaluation(
    count.nullable().default(null),
    COUNT,
    "Stop after this many evaluations without a lower loss.",
  ),
  load_best_model_at_end: evaluation(
    z.boolean().default(false),
    YES_NO,
    "Keep the adapter of the lowest evaluation loss instead of the last one.",
  ),
  sample_prompts: evaluation(
    texts.default([]),
    TEXTS,
    "Prompts answered before and after training, shown in the report; of images, drawn.",
    "text",
  ),
  logging_steps: evaluation(count.default(1), COUNT, "Write metrics every so many steps."),
  save_steps: evaluation(
    count.nullable().default(null),
    COUNT,
    "Save a checkpoint every so many steps; unset: after each epoch.",
  ),
  save_total_limit: evaluation(
    count.default(2),
    COUNT,
    "Checkpoints kept; older ones are removed.",
  ),

  gradient_checkpointing: machine(
    z.boolean().default(false),
    YES_NO,
    "Compute activations twice instead of keeping them: less memory, slower.",
  ),
  checkpointing: machine(
    z.enum(["auto", "on", "off"]).default("auto"),
    "auto, on or off",
    "The same; auto: only where a GPU's memory would not do without.",
    "text",
  ),
  base_dtype: machine(
    z.enum(["auto", "f32", "bf16", "f16", "fp8", "int8", "nf4"]).default("auto"),
    "auto, f32, bf16, f16, fp8, int8 or nf4",
    "How the frozen base is kept in memory; f16 and fp8 on NVIDIA GPUs alone.",
    "text",
  ),
  memory: machine(
    z.enum(["fast", "lean", "packed"]).default("fast"),
    "fast, lean or packed",
    "On the CPU: lean gives memory back after each use; packed keeps a copy of the weights for each size of batch, for faster steps after a longer start.",
    "text",
  ),
  check_memory: machine(
    z.boolean().default(true),
    YES_NO,
    "On the CPU: refuse a run that needs more memory than is free, by an estimate; off: warn.",
  ),
  device: machine(
    z
      .string()
      .regex(/^(auto|cpu|webgpu|cuda(:\d+)?)$/)
      .default("auto"),
    "auto, cpu, webgpu, cuda or cuda:N",
    "Where to compute.",
    "text",
  ),
  threads: machine(
    count.nullable().default(null),
    COUNT,
    "CPU threads; unset: one for each physical core.",
  ),
};

/** What is said about the field `key`. */
export function fieldInfo(key: keyof TrainConfig): FieldInfo {
  return TRAIN_FIELDS[key].meta() as unknown as FieldInfo;
}

/** The default of the field `key`; undefined when it must be given. */
export function fieldDefault<K extends keyof TrainConfig>(key: K): TrainConfig[K] | undefined {
  return TRAIN_FIELDS[key].safeParse(undefined).data;
}

/** Names of all fields, in the order of the docs. */
export const TRAIN_KEYS: readonly (keyof TrainConfig)[] = Object.keys(
  TRAIN_FIELDS,
) as (keyof TrainConfig)[];
