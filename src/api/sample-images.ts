import { join } from "node:path";
import type { TrainConfig } from "../host/train-config.ts";
import type { ImageEvent, TrainEvent } from "../train/events.ts";
import type { ImagePipeline } from "./image-pipeline.ts";
import type { ImageSession } from "./image-session.ts";
import { resolutionOf } from "./image-training-data.ts";
import { imagine } from "./imagine.ts";
import { saveImage } from "./save-image.ts";
import type { ResolvedRun } from "./train-options.ts";
import type { TrainTask } from "./train-task.ts";

/**
 * Draws the sample prompts before training, every `sample_steps` steps, and at the end with the adapter that is kept,
 * into `samples` of the run's folder; undefined when the run has no prompts or no folder.
 */
export function samplePainter(
  pipeline: ImagePipeline,
  session: ImageSession,
  { config, outputDir }: ResolvedRun,
): TrainTask["after"] {
  const { sample_prompts: prompts, sample_guidance: guidance, seed } = config;
  if (prompts.length === 0 || outputDir === undefined) return undefined;
  const side = resolutionOf(pipeline, config);
  return async function* (event) {
    const step = stepOf(event, config);
    if (step === undefined) return;
    for (const [i, prompt] of prompts.entries()) {
      const name = `step-${String(step).padStart(6, "0")}-${i}.png`;
      const path = join(outputDir, "samples", name);
      const options = { prompt, guidance, seed, width: side, height: side };
      await saveImage(await imagine(pipeline, options, session), path);
      yield { type: "image", step, prompt, path } satisfies ImageEvent;
    }
  };
}

/** The number of steps of the adapter that images are due of, if they are. */
function stepOf(
  event: TrainEvent | undefined,
  { sample_steps: every, load_best_model_at_end: keepsBest }: TrainConfig,
): number | undefined {
  if (!event) return 0;
  if (event.type === "end") {
    const { best, reason, step } = event;
    if (reason === "interrupted") return undefined;
    return keepsBest && best ? best.step : step;
  }
  if (event.type !== "step" || every === null || event.step === event.totalSteps) return undefined;
  return event.step % every === 0 ? event.step : undefined;
}
