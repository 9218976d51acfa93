import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { diffusionFolder } from "../../test/support/diffusion.ts";
import { noiseSchedule } from "../diffusion/noise-schedule.ts";
import { checkTrainConfig } from "../host/train-config-read.ts";
import type { TrainConfig } from "../host/train-config.ts";
import { tensor } from "../tensor/tensor.ts";
import type { Batch } from "../train/setup.ts";
import { imageEvaluation, imageLoader, type ImageSource } from "./image-batches.ts";
import type { EncodedImage } from "./image-data.ts";
import { type ImagePipeline, loadPipeline } from "./image-pipeline.ts";
import { scalingFactor } from "./image-session.ts";

let pipeline: ImagePipeline;
beforeAll(async () => {
  pipeline = await loadPipeline(join(diffusionFolder, "sd1"));
});

const SHAPE = [1, 2, 2] as const;
/** An image whose latents all are `value`, and those of its mirror image −`value`. */
function image(value: number, size: number): EncodedImage {
  const flat = (x: number) => ({
    mean: new Float32Array(4).fill(x),
    deviation: new Float32Array(4),
    shape: SHAPE,
  });
  const file = { path: `${value}.png`, caption: `image ${value}` };
  return { file, size, latents: [flat(value), flat(-value)], sizes: [] };
}
const images = Array.from({ length: 60 }, (_, i) => image(i + 1, i % 3 === 0 ? 1 : 0));
/** What stands for a caption: its number, 0 for none. */
const conditions = new Map(
  ["", ...images.map(({ file }) => file.caption)].map((caption, i): [string, Batch] => [
    caption,
    { encoder_hidden_states: tensor("f32", [1, 1, 1], Float32Array.of(i)) },
  ]),
);

function source(settings: Record<string, unknown>, held: EncodedImage[] = []): ImageSource {
  const config: TrainConfig = checkTrainConfig({
    ...{ task: "text-to-image", data: "photos", per_device_train_batch_size: 4 },
    ...settings,
  });
  const schedule = noiseSchedule(pipeline.checkpoint.scheduler);
  const noise = { schedule, prediction: "sample", snrGamma: undefined, noiseOffset: 0 } as const;
  return { pipeline, config, noise, train: images, prior: [], held, conditions };
}

interface SeenRow {
  readonly latent: number;
  readonly caption: number;
}

/** The rows of the first pass: what is to be predicted are the clean latents. */
async function rowsOf(given: ImageSource): Promise<SeenRow[][]> {
  const loader = imageLoader(given);
  const batches: Batch[] = [];
  for await (const window of loader.windows(undefined)) {
    batches.push(...window.batches);
    if (window.epoch >= 1) break;
  }
  return batches.map(seen);
}

function seen(batch: Batch): SeenRow[] {
  const scale = scalingFactor(pipeline);
  const captions = Array.from(batch["encoder_hidden_states"]!.data, Number);
  return captions.map((caption, i) => ({
    caption,
    latent: Math.round(Number(batch["target"]!.data[4 * i]) / scale),
  }));
}

describe("a pass over images", () => {
  test("has each image once with its own caption, in batches of one size", async () => {
    const batches = await rowsOf(source({}));
    const rows = batches.flat();
    expect(rows.map(({ latent }) => latent).sort((a, b) => a - b)).toEqual(images.map((_, i) => i + 1)); // prettier-ignore
    for (const { latent, caption } of rows) expect(caption).toBe(latent);
    for (const batch of batches)
      expect(new Set(batch.map(({ latent }) => (latent - 1) % 3 === 0)).size).toBe(1);
  });

  test("random_flip takes the mirror image's latents for about every second one", async () => {
    const rows = (await rowsOf(source({ random_flip: true }))).flat();
    const flipped = rows.filter(({ latent }) => latent < 0).length;
    expect(flipped).toBeGreaterThan(18); // 60 tosses: within three deviations of 30
    expect(flipped).toBeLessThan(42);
    for (const { latent, caption } of rows) expect(caption).toBe(Math.abs(latent));
  });

  test("caption_dropout leaves its share of the captions empty", async () => {
    const rows = (await rowsOf(source({ caption_dropout: 0.3 }))).flat();
    const empty = rows.filter(({ caption }) => caption === 0).length;
    expect(empty).toBeGreaterThan(7); // 60 draws: within three deviations of 18
    expect(empty).toBeLessThan(29);
  });
});

test("evaluation flips and drops nothing, and has every held-out image at four fixed times", async () => {
  const held = images.slice(0, 5);
  const given = source({ random_flip: true, caption_dropout: 1 }, held);
  const batches: Batch[] = [];
  for await (const batch of imageEvaluation(given)!()) batches.push(batch);
  const rows = batches.flatMap(seen);
  expect(rows).toHaveLength(20);
  for (const { latent, caption } of rows) expect(caption).toBe(latent);
  const all = (key: string): number[] => batches.flatMap((batch) => Array.from(batch[key]!.data, Number)); // prettier-ignore
  const quarters = [0, 1, 2, 3].map((k) => all("timestep").filter((t) => Math.floor(t / 250) === k).length); // prettier-ignore
  expect(quarters).toEqual([5, 5, 5, 5]);
  expect(all("loss_weights").reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
});
