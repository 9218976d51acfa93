import type { LoraConfig } from "../adapter/lora-config.ts";
import type { LaunchedRank } from "../host/ranks.ts";
import { checkTrainConfig } from "../host/train-config-read.ts";
import type { TrainConfig } from "../host/train-config.ts";
import { loraOfConfig, settingsOfLora } from "../host/lora-settings.ts";
import type { RunSize } from "./run-size.ts";

type Camel<S extends string> = S extends `${infer A}_${infer B}`
  ? `${A}${Capitalize<Camel<B>>}`
  : S;
type CamelConfig = { readonly [K in keyof TrainConfig as Camel<K>]?: TrainConfig[K] };

/**
 * Options of `train`: every setting of a training run in camelCase (docs/config.md), with short names for the most
 * used ones. Without `outputDir` nothing is written to disk.
 */
export interface TrainOptions extends Omit<CamelConfig, "data" | "evalData" | "samplePrompts"> {
  readonly data: string | readonly string[];
  readonly evalData?: string | readonly string[];
  readonly samplePrompts?: readonly string[];
  /** The adapter to train; its fields win over the single ones. */
  readonly lora?: LoraConfig;
  /** numTrainEpochs. */
  readonly epochs?: number;
  /** perDeviceTrainBatchSize. */
  readonly batchSize?: number;
  /** Ends the run after the step in flight; what was reached is saved. */
  readonly signal?: AbortSignal;
  /** Told how many rows of a data set are read and tokenized, now and then. */
  readonly onRows?: (rows: number) => void;
  /** Told before the first step how much is trained, on what. */
  readonly onStart?: (size: RunSize) => void;
}

/** A run's settings, checked and complete. */
export interface ResolvedRun {
  readonly config: TrainConfig;
  readonly lora: LoraConfig;
  readonly outputDir: string | undefined;
  readonly signal: AbortSignal | undefined;
  readonly onRows?: (rows: number) => void;
  readonly onStart?: (size: RunSize) => void;
  /** This process among those that a launcher started to train together; absent: it is alone. */
  readonly ranks?: LaunchedRank;
}

/** Checks `options` and fills in defaults. @throws LorikeetError `config` naming each wrong key */
export function resolveTrainOptions(options: TrainOptions): ResolvedRun {
  const { lora, epochs, batchSize, signal, onRows, onStart, ...rest } = options;
  const raw: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(rest) as [string, unknown][])
    if (value !== undefined)
      raw[key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)] = value;
  if (epochs !== undefined) raw["num_train_epochs"] = epochs;
  if (batchSize !== undefined) raw["per_device_train_batch_size"] = batchSize;
  if (lora) Object.assign(raw, settingsOfLora(lora));
  const config = checkTrainConfig(raw);
  return {
    ...{ config, lora: lora ?? loraOfConfig(config), outputDir: options.outputDir, signal },
    ...(onRows && { onRows }),
    ...(onStart && { onStart }),
  };
}
