import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adapterFromDiffusers } from "../src/adapter/formats/diffusers.ts";
import { createPipeline, type ImagePipeline, loadPipeline } from "../src/api/image-pipeline.ts";
import { captionFeeds, type ImageSession, openImageSession } from "../src/api/image-session.ts";
import { imagine, type ImagineOptions, type MadeImage } from "../src/api/imagine.ts";
import { openSingleFile } from "../src/host/open-single-file.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { diffusionFolder, farthest, readLoraFile, readTensors } from "./support/diffusion.ts";
import { writeSingleFile } from "./support/single-file.ts";

const sd1 = join(diffusionFolder, "sd1");
let folder: string;
let expected: ReadonlyMap<string, Tensor>;
let run: ImagineOptions;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "lorikeet-imagine-"));
  expected = await readTensors("sd1/expected.safetensors");
  run = {
    prompt: "a cat, and a dog!",
    negativePrompt: "blurry",
    steps: 5,
    guidance: 4,
    latents: expected.get("latents")!,
    height: 16,
    width: 24,
  };
});
afterAll(() => rm(folder, { recursive: true }));

/** Compares with diffusers' image: latents to 1e-4 of the largest, pixels to 1 of 255. */
function closeTo(image: MadeImage, latents: Tensor, pixels: Tensor): void {
  const largest = Math.max(...toFloat64(latents).map(Math.abs));
  expect(farthest(image.latents, latents) / largest).toBeLessThan(1e-4);
  expect([image.height, image.width, 3]).toEqual(pixels.shape);
  const worst = Math.max(...image.rgb.map((x, i) => Math.abs(x - Number(pixels.data[i]))));
  expect(worst).toBeLessThanOrEqual(1);
}

async function checkImage(pipeline: ImagePipeline): Promise<void> {
  const image = await imagine(pipeline, run);
  closeTo(image, expected.get("final_latents")!, expected.get("image")!);
}

it("a diffusers folder makes diffusers' image", async () => {
  const pipeline = await loadPipeline(sd1, { threads: 1 });
  for (const [prompt, key] of [
    ["a cat, and a dog!", "prompt_ids"],
    ["blurry", "negative_prompt_ids"],
  ] as const) {
    const ids = captionFeeds(pipeline, [prompt])["input_ids"]!;
    expect([...ids.data]).toEqual([...expected.get(key)!.data]);
  }
  await checkImage(pipeline);
});

it("so does one file in the original layout, with vocab.json and merges.txt alone", async () => {
  const pipeline = await loadPipeline(sd1);
  const { configs } = pipeline.checkpoint;
  const file = join(folder, "model.safetensors");
  await writeSingleFile(pipeline.checkpoint, file);
  const checkpoint = await openSingleFile(file, { configs });
  const opened = createPipeline(checkpoint, { threads: 1 });
  expect(captionFeeds(opened, [run.prompt])["input_ids"]!.data).toEqual(
    expected.get("prompt_ids")!.data,
  );
  await checkImage(opened);
  expect(JSON.parse(await readFile(join(sd1, "unet/config.json"), "utf8"))).toEqual(configs.unet);
});

it("SDXL with two text encoders makes diffusers' images, with and without a negative prompt", async () => {
  const xl = join(folder, "xl");
  await cp(join(diffusionFolder, "sdxl-pipeline"), xl, { recursive: true });
  await cp(join(diffusionFolder, "sdxl/unet"), join(xl, "unet"), { recursive: true });
  await cp(join(sd1, "vae"), join(xl, "vae"), { recursive: true });
  const pipeline = await loadPipeline(xl, { threads: 1 });
  const images = await readTensors("sdxl-pipeline/expected.safetensors");
  const { negativePrompt: _, ...bare } = { ...run, steps: 4, guidance: 3 };
  const options = { ...bare, sampler: "euler" as const, latents: images.get("latents")! };
  const session = await openImageSession(pipeline);
  try {
    for (const [key, given] of [
      ["zeros", {}],
      ["blurry", { negativePrompt: "blurry" }],
    ] as const) {
      const image = await imagine(pipeline, { ...options, ...given }, session);
      closeTo(image, images.get(`${key}.final_latents`)!, images.get(`${key}.image`)!);
    }
  } finally {
    await session.dispose();
  }
});

describe("adapters", () => {
  let pipeline: ImagePipeline;
  let session: ImageSession;
  beforeAll(async () => {
    pipeline = await loadPipeline(sd1, { threads: 1 });
    session = await openImageSession(pipeline);
  });
  afterAll(() => session.dispose());

  it("change the image by their weights, several together; weight 0 is the base", async () => {
    const read = async (name: string): Promise<ReturnType<typeof adapterFromDiffusers>> =>
      adapterFromDiffusers(await readLoraFile(`lora/${name}/pytorch_lora_weights.safetensors`));
    const [attention, everything] = [await read("sd1-attention"), await read("sd1-everything")];
    const small = { ...run, steps: 2 };
    const latents = async (...adapters: Parameters<ImagePipeline["withAdapters"]>[0]) =>
      (await imagine(pipeline.withAdapters(adapters), small)).latents;
    const base = (await imagine(pipeline, small, session)).latents;
    expect(farthest(await latents({ adapter: attention, weight: 0 }), base)).toBe(0);
    const one = await latents({ adapter: attention });
    expect(farthest(one, base)).toBeGreaterThan(0.01);
    const both = await latents({ adapter: attention }, { adapter: everything, weight: 0.5 });
    expect(farthest(both, one)).toBeGreaterThan(0.01);
    // the sum of two halves is the whole
    const halves = [0.5, 0.5].map((weight) => ({ adapter: attention, weight }));
    expect(farthest(await latents(...halves), one)).toBeLessThan(1e-4);
  });

  it("the same seed gives the same image, another one another; sizes are checked", async () => {
    const at = (seed: number): Promise<Tensor> =>
      imagine(pipeline, { prompt: "a dog", steps: 2, seed, width: 16, height: 16 }, session).then(
        (image) => image.latents,
      );
    expect(farthest(await at(1), await at(1))).toBe(0);
    expect(farthest(await at(1), await at(2))).toBeGreaterThan(0.1);
    await expect(
      imagine(pipeline, { prompt: "", width: 20, height: 16 }, session),
    ).rejects.toMatchObject({ code: "image-size", hint: "Nearest: 24 × 16." });
  });
});
