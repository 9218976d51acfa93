import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { peftKey } from "../src/adapter/adapter.ts";
import { adapterFromDiffusers } from "../src/adapter/formats/diffusers.ts";
import { attachImageAdapter } from "../src/adapter/image-adapter.ts";
import { loadPipeline } from "../src/api/image-pipeline.ts";
import { captionFeeds } from "../src/api/image-session.ts";
import { createOnnxEngine } from "../src/backends/onnx/engine.ts";
import { noiseSchedule } from "../src/diffusion/noise-schedule.ts";
import { noisyFeeds } from "../src/diffusion/noisy-batch.ts";
import { convert, toFloat32, toFloat64 } from "../src/tensor/convert.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { denoiseShape, imageTrainingGraph, type ImagePlan } from "../src/train/image-plan.ts";
import { diffusionFolder, farthest, readLoraFile, readTensors } from "./support/diffusion.ts";

const norm = (value: Tensor): number => Math.hypot(...toFloat64(value));

/** The folder of the base of `name`; SDXL's parts lie in several. */
async function folderOf(name: string, place: string): Promise<string> {
  if (name === "sd1-text") return join(diffusionFolder, "sd1");
  await cp(join(diffusionFolder, "sdxl-pipeline"), place, { recursive: true });
  await cp(join(diffusionFolder, "sdxl/unet"), join(place, "unet"), { recursive: true });
  await cp(join(diffusionFolder, "sd1/vae"), join(place, "vae"), { recursive: true });
  return place;
}

it.each([
  ["sd1-text", ["q_proj", "to_k", "ff.net.2", "conv1", "conv_shortcut", "upsamplers.0.conv"]],
  ["sdxl-text", ["text_encoder_2.", "q_proj", "to_k"]],
])("%s, from captions to gradients of UNet and text encoders: PEFT's", async (name, kinds) => {
  const place = await mkdtemp(join(tmpdir(), "lorikeet-text-lora-"));
  const pipeline = await loadPipeline(await folderOf(name, place));
  const { checkpoint, layers, idleLayers } = pipeline;
  const expected = await readTensors(`lora/${name}/expected.safetensors`);
  const get = (key: string): Tensor => expected.get(key)!;
  const file = await readLoraFile(`lora/${name}/pytorch_lora_weights.safetensors`);
  const { sites, values } = attachImageAdapter(adapterFromDiffusers(file), [...layers, ...idleLayers]); // prettier-ignore
  const captions = captionFeeds(pipeline, ["a cat, and a dog!", "dog"]);
  for (const [key, ids] of [
    ["text_encoder.ids", "input_ids"],
    ["text_encoder_2.ids", "input_ids_2"],
  ] as const)
    expect(captions[ids]?.data).toEqual(expected.get(key)?.data);
  const rows = [0, 1].map((i) => {
    const row = (key: string): Float32Array => toFloat32(get(key)).slice(64 * i, 64 * i + 64);
    const t = Number(get("timestep").data[i]);
    return { clean: row("clean"), noise: row("noise"), t, weight: 0.5 };
  });
  const schedule = noiseSchedule(checkpoint.scheduler);
  const noise = { schedule, prediction: "epsilon", snrGamma: undefined, noiseOffset: 0 } as const;
  const sizes = expected.get("time_ids");
  const batch = { ...noisyFeeds(rows, [4, 4, 4], noise), ...captions, ...(sizes && { time_ids: sizes }) }; // prettier-ignore
  const plan: ImagePlan = { configs: checkpoint.configs, sites, checkpointing: false };
  const engine = createOnnxEngine({ weights: checkpoint.weights, threads: 1 });
  try {
    for (const [key, value] of values) await engine.set(key, convert(value, "f32"));
    const program = await engine.compile(imageTrainingGraph(plan, denoiseShape(batch)));
    const { loss } = await program.run(batch);
    const wanted = Number(get("loss").data[0]);
    expect(Math.abs(Number(loss!.data[0]) - wanted)).toBeLessThan(1e-4 * wanted);
    const gradients = [...expected.keys()].filter((key) => key.startsWith("grad."));
    for (const kind of kinds) expect(gradients.join()).toContain(kind);
    for (const entry of gradients) {
      const [, model, own, part] = /^grad\.(\w+)\.(.+)\.(lora_[AB]\.weight)$/.exec(entry)!;
      // PEFT's names are transformers 5's, which has no text_model
      const module = `${model!}.${model === "unet" ? "" : "text_model."}${own!.replace(/^text_model\./, "")}`; // prettier-ignore
      const got = await engine.get(`${peftKey(module, part!)}.grad`);
      expect(farthest(got, get(entry)), entry).toBeLessThan(1e-4 * norm(get(entry)) + 1e-7);
    }
  } finally {
    await engine.dispose();
    await rm(place, { recursive: true });
  }
});
