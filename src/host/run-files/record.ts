import { join } from "node:path";
import type { StepEvent, TrainEvent } from "../../train/events.ts";
import { writeAtomically } from "../files.ts";
import { thumbnailUrl } from "../image-pixels.ts";
import type { TrainConfig } from "../train-config.ts";
import { writeTrainConfig } from "../train-config-read.ts";
import { lossCurve } from "./loss-curve.ts";
import { openMetrics, readMetrics } from "./metrics.ts";
import { renderReport, type ReportPicture, type RunReport } from "./report.ts";
import { openTensorBoard } from "./tensorboard.ts";

/** What a run leaves in its folder beside the adapter. */
export const RUN_FILES: Readonly<Record<"config" | "metrics" | "curve" | "report", string>> = {
  config: "train-config.yaml",
  metrics: "metrics.jsonl",
  curve: "loss.svg",
  report: "report.html",
};

/** Folder of the TensorBoard files. */
export const BOARD_FOLDER = "runs";

/** Writes a run down while it goes. */
export interface RunRecorder {
  /** Adds `event` to metrics.jsonl and the TensorBoard file; steps in between `logging_steps` are left out. */
  record(event: TrainEvent): Promise<void>;
  /** Writes loss.svg and report.html from everything recorded, also before a resume. Gives their paths. */
  report(about: Omit<RunReport, "config" | "events" | "pictures">): Promise<string[]>;
  close(): Promise<void>;
}

/**
 * Opens the record of a run in `config.output_dir`: saves its settings, and goes on with the metrics up to step
 * `resumeFrom`, or starts them anew.
 * @throws LorikeetError `disk-full`, `read-only`, `permission-denied`
 */
export async function recordRun(config: TrainConfig, resumeFrom?: number): Promise<RunRecorder> {
  const at = (name: keyof typeof RUN_FILES): string => join(config.output_dir, RUN_FILES[name]);
  await writeAtomically(at("config"), writeTrainConfig(config));
  const metrics = await openMetrics(at("metrics"), resumeFrom);
  const board = await openTensorBoard(join(config.output_dir, BOARD_FOLDER), resumeFrom);
  return {
    async record(event) {
      if (event.type === "step" && !isLogged(event, config.logging_steps)) return;
      await metrics.append(event);
      const scalars = scalarsOf(event);
      if (scalars) await board.append(scalars.step, scalars.values);
    },
    async report(about) {
      const events = await readMetrics(at("metrics"));
      await writeAtomically(at("curve"), lossCurve(events, about.title));
      const pictures = await picturesOf(events);
      await writeAtomically(at("report"), renderReport({ ...about, config, events, pictures }));
      return [at("curve"), at("report")];
    },
    async close() {
      await metrics.close();
      await board.close();
    },
  };
}

/** The images that were made, small enough for a page; those whose files are gone are left out. */
async function picturesOf(events: readonly TrainEvent[]): Promise<ReportPicture[]> {
  const pictures: ReportPicture[] = [];
  for (const event of events) {
    if (event.type !== "image") continue;
    const url = await thumbnailUrl(event.path, 384).catch(() => undefined);
    if (url !== undefined) pictures.push({ prompt: event.prompt, step: event.step, url });
  }
  return pictures;
}

function isLogged({ step, totalSteps }: StepEvent, every: number): boolean {
  return step === 1 || step === totalSteps || step % every === 0;
}

function scalarsOf(
  event: TrainEvent,
): { step: number; values: Readonly<Record<string, number>> } | undefined {
  if (event.type === "eval") {
    const { loss, perplexity } = event;
    const values = {
      "eval/loss": loss,
      ...(perplexity !== undefined && { "eval/perplexity": perplexity }),
    };
    return { step: event.step, values };
  }
  if (event.type !== "step") return undefined;
  return {
    step: event.step,
    values: {
      "train/loss": event.loss,
      "train/learning_rate": event.learningRate,
      "train/grad_norm": event.gradNorm,
      "train/epoch": event.epoch,
      [`train/${event.unit ?? "tokens"}_per_second`]: event.tokensPerSecond,
      "train/memory_bytes": event.memoryBytes,
    },
  };
}
