import { readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Adapter } from "../adapter/adapter.ts";
import { DIFFUSERS_FILE } from "../adapter/formats/diffusers.ts";
import { PIPELINE_MODELS } from "../adapter/image-adapter.ts";
import { LorikeetError } from "../errors.ts";
import { faultsError } from "../formats/faults.ts";
import { decodeSafetensors } from "../formats/safetensors.ts";
import { serializeSafetensors } from "../formats/safetensors-write.ts";
import { freshState, type RunState } from "../train/setup.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { asFileError } from "./file-errors.ts";
import { isFile, readText, writeAtomically } from "./files.ts";
import { BOARD_FOLDER, RUN_FILES } from "./run-files/record.ts";
import { readTrainConfig } from "./train-config-read.ts";
import type { TrainConfig } from "./train-config.ts";
import { fieldInfo, TRAIN_KEYS } from "./train-fields.ts";

/** How adapters are written into a folder, and read from it. */
export interface AdapterStorage {
  save(adapter: Adapter, folder: string): Promise<void>;
  /** Writes the result of a run, where that is no adapter. */
  saveResult?(adapter: Adapter, folder: string): Promise<void>;
  load(folder: string): Promise<Adapter>;
}

/** Everything a run continues from: the adapter, the optimizer's moments by parameter, the loop's state. */
export interface RunCheckpoint {
  readonly adapter: Adapter;
  readonly optimizer: ReadonlyMap<string, Tensor>;
  readonly state: RunState;
}

const CHECKPOINT = /^checkpoint-(\d+)$/;
const STATE = "trainer_state.json";
const OPTIMIZER = "optimizer.safetensors";
/** What a run leaves in its folder besides checkpoints. */
const RESULTS = [
  "adapter_config.json",
  "adapter_model.safetensors",
  DIFFUSERS_FILE,
  ...PIPELINE_MODELS,
  "samples",
  "best",
  BOARD_FOLDER,
  ...Object.values(RUN_FILES),
];

/**
 * Writes `checkpoint-<step>` in `folder`, whole or not at all, and removes older ones beyond `limit` (0: none).
 * @returns the checkpoint's path
 */
export async function saveCheckpoint(
  folder: string,
  checkpoint: RunCheckpoint,
  limit: number,
  storage: AdapterStorage,
): Promise<string> {
  const path = join(folder, `checkpoint-${checkpoint.state.step}`);
  const temporary = `${path}.tmp`;
  const state = JSON.stringify(checkpoint.state, undefined, 2);
  try {
    if (await isFile(join(path, STATE))) {
      // the same step has the same tensors; replacing the folder would leave a moment without any checkpoint
      await writeAtomically(join(path, STATE), state);
      return path;
    }
    await rm(temporary, { recursive: true, force: true });
    await storage.save(checkpoint.adapter, temporary);
    await writeAtomically(
      join(temporary, OPTIMIZER),
      serializeSafetensors(checkpoint.optimizer, { format: "pt" }),
    );
    await writeAtomically(join(temporary, STATE), state);
    await rm(path, { recursive: true, force: true });
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw asFileError(cause, path, "written");
  }
  if (limit > 0)
    for (const step of (await stepsIn(folder)).slice(0, -limit))
      await removeCheckpoint(folder, step);
  return path;
}

/** The newest checkpoint in `folder`, or undefined. */
export async function latestCheckpoint(
  folder: string,
  storage: AdapterStorage,
): Promise<RunCheckpoint | undefined> {
  const step = (await stepsIn(folder)).at(-1);
  if (step === undefined) return undefined;
  const path = join(folder, `checkpoint-${step}`);
  const { tensors } = await decodeSafetensors(await readFile(join(path, OPTIMIZER)), OPTIMIZER);
  return {
    adapter: await storage.load(path),
    optimizer: tensors,
    state: {
      ...freshState, // fields that older versions did not keep
      ...(JSON.parse(await readText(join(path, STATE))) as Partial<RunState>),
    },
  };
}

/** Whether an adapter was written into `folder`. */
export async function hasAdapter(folder: string): Promise<boolean> {
  const files = ["adapter_config.json", DIFFUSERS_FILE];
  return (await Promise.all(files.map((file) => isFile(join(folder, file))))).includes(true);
}

/**
 * Makes sure that a run may write into `folder`: it is empty of runs, or the run there is resumed or overwritten. What a
 * killed run was writing is removed.
 * @throws LorikeetError `output-exists` when there is a run and neither was asked for; `run-changed`
 */
export async function claimOutput(folder: string, config: TrainConfig): Promise<void> {
  const metrics = await stat(join(folder, RUN_FILES.metrics)).catch(() => undefined);
  const hasBegun = metrics !== undefined && metrics.size > 0; // it may be running still
  const isTaken = hasBegun || (await hasAdapter(folder)) || (await stepsIn(folder)).length > 0;
  if (isTaken && !config.resume && !config.overwrite)
    throw new LorikeetError(
      "output-exists",
      `Expected ${folder} to hold no run yet; it holds one`,
      {
        hint: "Add --resume to continue it, --overwrite to start anew, or choose another output_dir.",
      },
    );
  for (const place of [folder, join(folder, "best")]) await removeUnfinished(place);
  if (!isTaken) return;
  if (config.resume) return checkSameLora(folder, config);
  for (const step of await stepsIn(folder)) await removeCheckpoint(folder, step);
  for (const name of RESULTS) await rm(join(folder, name), { recursive: true, force: true });
}

/** A run goes on with the adapter that it has. @throws LorikeetError `run-changed` when another one is asked for */
async function checkSameLora(folder: string, config: TrainConfig): Promise<void> {
  const path = join(folder, RUN_FILES.config);
  if (!(await isFile(path))) return;
  const before = await readTrainConfig({ file: path });
  const faults = TRAIN_KEYS.filter((key) => fieldInfo(key).group === "LoRA")
    .map((key) => ({ key, was: JSON.stringify(before[key]), is: JSON.stringify(config[key]) }))
    .filter(({ was, is }) => was !== is)
    .map(({ key, was, is }) => `${key} is ${is}, it was ${was}`);
  if (faults.length > 0)
    throw faultsError(
      "run-changed",
      `the LoRA settings that the run in ${folder} began with`,
      faults,
      "Leave them as they were to resume, or start anew: --overwrite, or another output_dir.",
    );
}

/** Removes files and checkpoints of a run in `folder` that stand under the temporary names they were written to. */
async function removeUnfinished(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const whole = /^(.+?)(\.[0-9a-f]{8})?\.tmp$/.exec(name)?.[1];
    if (whole && (CHECKPOINT.test(whole) || RESULTS.includes(whole)))
      await rm(join(folder, name), { recursive: true, force: true });
  }
}

async function removeCheckpoint(folder: string, step: number): Promise<void> {
  await rm(join(folder, `checkpoint-${step}`), { recursive: true, force: true });
}

/** Steps of the complete checkpoints in `folder`, ascending. */
async function stepsIn(folder: string): Promise<number[]> {
  const names = await readdir(folder).catch(() => []);
  const steps: number[] = [];
  for (const name of names) {
    const step = CHECKPOINT.exec(name)?.[1];
    if (step !== undefined && (await isFile(join(folder, name, STATE)))) steps.push(Number(step));
  }
  return steps.sort((a, b) => a - b);
}
