import {
  buildDataset,
  type DataReport,
  type Dataset,
  type DatasetOptions,
} from "../data/dataset.ts";
import { exampleWriter } from "../data/example-store.ts";
import { createLoader, evaluationBatches } from "../data/loader.ts";
import { readDataset } from "../host/dataset-files.ts";
import { spillingWords } from "../host/spilling-words.ts";
import type { TrainConfig } from "../host/train-config.ts";
import { contextOf } from "../models/config.ts";
import type { Model } from "./model.ts";
import { type TaskData, windowsOf } from "./train-task.ts";

/** The texts of a run as batches, and what was found in them. */
export interface TextData extends TaskData {
  readonly report: Pick<DataReport, "samples" | "tokens" | "longest" | "supervisedTokens">;
  readonly warnings: DataReport["warnings"];
}

/** The samples of a language model's run. */
export interface TrainingData extends TextData {
  readonly report: DataReport;
}

/**
 * Reads and tokenizes the data of `config` for `model`; `onProgress` is told the rows that are read.
 * @throws LorikeetError what reading and tokenizing rows throws, with file, line and reason
 */
export async function openTrainingData(
  model: Model,
  config: TrainConfig,
  onProgress?: (rows: number) => void,
): Promise<TrainingData> {
  const options = optionsOf(model, config, onProgress);
  const split = { validationFraction: config.validation_split };
  const dataset = await read(config.data, { ...options, ...split });
  const { store, train, validation } = dataset;
  const shape = {
    maxLength: Math.min(config.max_length, contextOf(model.checkpoint.config)),
    padId: model.tokenizer.specials.padId,
    packing: config.packing,
  };
  const loader = createLoader(store, train, {
    ...shape,
    batchSize: config.per_device_train_batch_size,
    accumulation: config.gradient_accumulation_steps,
    seed: config.seed,
  });
  const other = config.eval_data.length > 0 ? await read(config.eval_data, options) : undefined;
  const held = other
    ? { store: other.store, samples: other.train }
    : { store, samples: validation };
  const evalShape = { ...shape, batchSize: config.per_device_eval_batch_size };
  return {
    ...windowsOf(loader, config),
    evaluation:
      held.samples.length > 0
        ? () => evaluationBatches(held.store, held.samples, evalShape)
        : undefined,
    report: dataset.report,
    warnings: [...dataset.report.warnings, ...(other?.report.warnings ?? [])],
  };
}

function optionsOf(
  model: Model,
  config: TrainConfig,
  onProgress: ((rows: number) => void) | undefined,
): DatasetOptions {
  return {
    tokenizer: model.tokenizer,
    template: model.chatTemplate,
    trainOn: config.train_on,
    maxLength: config.max_length,
    contextLength: contextOf(model.checkpoint.config),
    skipBadRows: config.skip_bad_rows,
    seed: config.seed,
    ...(onProgress && { onProgress }),
  };
}

function read(paths: readonly string[], options: DatasetOptions): Promise<Dataset> {
  return buildDataset(readDataset(paths), { ...options, writer: exampleWriter(spillingWords()) });
}
