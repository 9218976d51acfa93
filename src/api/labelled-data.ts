import { buildLabelled, type Labelled } from "../data/labelled.ts";
import { labelledBatches, labelledLoader } from "../data/labelled-loader.ts";
import { splitByKey } from "../data/validation-split.ts";
import { readDataset } from "../host/dataset-files.ts";
import type { TrainConfig } from "../host/train-config.ts";
import { contextOf } from "../models/config.ts";
import type { Model } from "./model.ts";
import { windowsOf } from "./train-task.ts";
import type { TextData } from "./training-data.ts";

/** The texts of a run as batches, and their classes. */
export interface LabelledData extends TextData {
  readonly labels: readonly string[];
}

/**
 * Reads and tokenizes the rows of text and label of `config` for the encoder `model`.
 * @throws LorikeetError what `buildLabelled` throws
 */
export async function openLabelledData(model: Model, config: TrainConfig): Promise<LabelledData> {
  const read = await texts(model, config, config.data, config.labels ?? undefined);
  const { labels, examples } = read;
  const keys = Uint32Array.from(examples, ({ key }) => key);
  const split = splitByKey(keys, config.validation_split);
  const of = (numbers: Uint32Array): typeof examples => Array.from(numbers, (i) => examples[i]!);
  const other =
    config.eval_data.length > 0 ? await texts(model, config, config.eval_data, labels) : undefined;
  const held = other?.examples ?? of(split.validation);
  const shape = { maxLength: lengthOf(model, config), padId: model.tokenizer.specials.padId };
  const loader = labelledLoader(of(split.train), {
    ...shape,
    batchSize: config.per_device_train_batch_size,
    accumulation: config.gradient_accumulation_steps,
    seed: config.seed,
  });
  const evalShape = { ...shape, batchSize: config.per_device_eval_batch_size };
  return {
    labels,
    ...windowsOf(loader, config),
    evaluation: held.length > 0 ? () => labelledBatches(held, evalShape) : undefined,
    report: {
      ...{ samples: examples.length, supervisedTokens: examples.length },
      ...{ tokens: read.tokens, longest: read.longest },
    },
    warnings: [...read.warnings, ...(other?.warnings ?? [])],
  };
}

function texts(
  model: Model,
  config: TrainConfig,
  paths: readonly string[],
  labels: readonly string[] | undefined,
): Promise<Labelled> {
  return buildLabelled(readDataset(paths), {
    tokenizer: model.tokenizer,
    maxLength: lengthOf(model, config),
    labels,
    known: model.labels!,
    skipBadRows: config.skip_bad_rows,
    seed: config.seed,
  });
}

function lengthOf({ checkpoint }: Model, { max_length: asked }: TrainConfig): number {
  const { config } = checkpoint;
  // RoBERTa's positions begin after its padding id
  const taken = config["model_type"] === "roberta" ? Number(config["pad_token_id"] ?? 1) + 1 : 0;
  return Math.min(asked, contextOf(config) - taken);
}
