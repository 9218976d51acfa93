import type { ChatTemplate } from "../data/chat-template.ts";
import { createChatTemplate } from "../data/chat-template.ts";
import { DEFAULT_CHAT_TEMPLATE } from "../data/default-chat-template.ts";
import { type Example, examplesOf, supervisedTokens } from "../data/examples.ts";
import { parseRow } from "../data/rows.ts";
import { LorikeetError } from "../errors.ts";
import { readDataset } from "../host/dataset-files.ts";
import type { TrainConfig } from "../host/train-config.ts";
import { Random } from "../tensor/random.ts";
import { tensor } from "../tensor/tensor.ts";
import type { Batch, Window } from "../train/trainer.ts";
import { int64 } from "./feeds.ts";
import type { Model } from "./model.ts";

/** The samples of a run as batches. */
export interface TrainingData {
  readonly stepsPerEpoch: number;
  readonly windows: (cursor: unknown) => AsyncIterable<Window>;
  readonly evaluation: readonly Batch[] | undefined;
  readonly warnings: readonly { code: string; message: string }[];
}

export async function openTrainingData(model: Model, config: TrainConfig): Promise<TrainingData> {
  const template = model.chatTemplate ?? createChatTemplate(DEFAULT_CHAT_TEMPLATE);
  let train = await readExamples(model, template, config, config.data);
  let held =
    config.eval_data.length > 0
      ? await readExamples(model, template, config, config.eval_data)
      : [];
  if (config.eval_data.length === 0 && config.validation_split > 0) {
    const shuffled = new Random(config.seed).fork("split").shuffle(train);
    const count = Math.ceil(config.validation_split * train.length);
    held = shuffled.slice(0, count);
    train = shuffled.slice(count);
  }
  if (train.length === 0)
    throw new LorikeetError("no-samples", "Expected at least one sample, got none");
  const size = config.per_device_train_batch_size;
  const perWindow = size * config.gradient_accumulation_steps;
  const stepsPerEpoch = Math.ceil(train.length / perWindow);
  async function* windows(cursor: unknown): AsyncGenerator<Window> {
    for (let step = (cursor as number | undefined) ?? 0; ; step++) {
      const epoch = Math.floor(step / stepsPerEpoch);
      const order = new Random(config.seed).fork(`epoch ${epoch}`).shuffle(train);
      const at = (step % stepsPerEpoch) * perWindow;
      const chosen = order.slice(at, at + perWindow);
      await Promise.resolve();
      const tokens = chosen.reduce((sum, example) => sum + example.inputIds.length, 0);
      yield {
        batches: batchesOf(chosen, size),
        tokens,
        epoch: (step + 1) / stepsPerEpoch,
        cursor: step + 1,
      };
    }
  }
  const byLength = [...held].sort((a, b) => a.inputIds.length - b.inputIds.length);
  const evaluation =
    held.length > 0 ? batchesOf(byLength, config.per_device_eval_batch_size) : undefined;
  return { stepsPerEpoch, windows, evaluation, warnings: [] };
}

async function readExamples(
  model: Model,
  template: ChatTemplate,
  config: TrainConfig,
  paths: string[],
): Promise<Example[]> {
  const examples: Example[] = [];
  for await (const row of readDataset(paths)) {
    if ("fault" in row) throw row.fault;
    const options = {
      tokenizer: model.tokenizer,
      template,
      trainOn: config.train_on,
      maxLength: config.max_length,
    };
    examples.push(...examplesOf(parseRow(row.value), options).examples);
  }
  return examples.filter((example) => supervisedTokens(example) > 0);
}

function batchesOf(examples: readonly Example[], size: number): Batch[] {
  const total = examples.reduce((sum, example) => sum + supervisedTokens(example), 0);
  const sorted = [...examples].sort((a, b) => a.inputIds.length - b.inputIds.length);
  const batches: Batch[] = [];
  for (let i = 0; i < sorted.length; i += size)
    batches.push(batchOf(sorted.slice(i, i + size), total));
  return batches;
}

function batchOf(examples: readonly Example[], total: number): Batch {
  const T = 64 * Math.ceil(Math.max(...examples.map(({ inputIds }) => inputIds.length)) / 64);
  const B = examples.length;
  const rows: number[] = [];
  const targets: number[] = [];
  examples.forEach(({ inputIds, labelMask }, b) => {
    labelMask.forEach((bit, t) => {
      if (!bit) return;
      rows.push(b * T + t - 1);
      targets.push(inputIds[t]!);
    });
  });
  const R = 64 * Math.ceil(rows.length / 64);
  const padTo = (values: number[]): number[] => [
    ...values,
    ...new Array<number>(R - values.length).fill(0),
  ];
  return {
    input_ids: int64(
      [B, T],
      examples.flatMap(({ inputIds }) => Array.from({ length: T }, (_, t) => inputIds[t] ?? 0)),
    ),
    position_ids: int64(
      [B, T],
      Array.from({ length: B * T }, (_, i) => i % T),
    ),
    loss_rows: int64([R], padTo(rows)),
    targets: int64([R], padTo(targets)),
    loss_weights: tensor(
      "f32",
      [R],
      Float32Array.from({ length: R }, (_, i) => (i < rows.length ? 1 / total : 0)),
    ),
  };
}
