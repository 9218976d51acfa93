import { describe, expect, it } from "vitest";
import { adapterFromDiffusers } from "../src/adapter/formats/diffusers.ts";
import { adapterFromKohya } from "../src/adapter/formats/kohya.ts";
import { attachImageAdapter } from "../src/adapter/image-adapter.ts";
import { peftKey } from "../src/adapter/adapter.ts";
import { createOnnxEngine } from "../src/backends/onnx/engine.ts";
import { denoised, givenCondition } from "../src/diffusion/pipeline-graphs.ts";
import { insertLora, loraCandidates } from "../src/passes/lora.ts";
import { convert, toFloat64 } from "../src/tensor/convert.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { denoiseShape, imageTrainingGraph, type ImagePlan } from "../src/train/image-plan.ts";
import {
  farthest,
  readLoraFile,
  readTensors,
  trainingBatch,
  unetFixture,
} from "./support/diffusion.ts";

const norm = (value: Tensor): number => Math.hypot(...toFloat64(value));

describe.each([
  ["sd1-attention", "pytorch_lora_weights", adapterFromDiffusers],
  ["sd1-attention", "kohya", adapterFromKohya],
  ["sd1-everything", "pytorch_lora_weights", adapterFromDiffusers],
  ["sd1-everything", "mixed-names", adapterFromDiffusers],
  ["sd1-everything", "kohya", adapterFromKohya],
  ["sdxl-attention", "pytorch_lora_weights", adapterFromDiffusers],
] as const)("%s as %s", (name, file, read) => {
  it("changes the UNet as in diffusers", async () => {
    const { configs, weights, feeds } = await unetFixture(name.split("-")[0]!);
    const expected = await readTensors(`lora/${name}/expected.safetensors`);
    const lora = await readLoraFile(`lora/${name}/${file}.safetensors`);
    const wide = { ...lora, metadata: alphaOf(file, lora.metadata) };
    const adapter = read(wide);
    const shape = denoiseShape(feeds);
    const output = denoised(configs, givenCondition(configs, shape), shape);
    const attachment = attachImageAdapter(adapter, loraCandidates([output]));
    const [adapted] = insertLora([output], attachment.sites, { nameOf: peftKey });
    const engine = createOnnxEngine({ weights, threads: 1 });
    for (const [key, value] of attachment.values) await engine.set(key, convert(value, "f32"));
    const program = await engine.compile({ outputs: { output: adapted! }, gradients: {} });
    const got = await program.run(feeds);
    await engine.dispose();
    expect(farthest(got["output"]!, expected.get("output")!)).toBeLessThan(1e-4);
  });
});

/** `mixed-names` was written without metadata; its alpha is twice the rank. */
function alphaOf(
  file: string,
  metadata: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  if (file !== "mixed-names") return metadata;
  const json = { "unet.peft_type": "LORA", "unet.r": 3, "unet.lora_alpha": 6 };
  return { ...metadata, lora_adapter_metadata: JSON.stringify(json) };
}

describe.each(["sd1-attention", "sdxl-attention"])("training %s", (name) => {
  it.each([
    ["epsilon", false],
    ["epsilon", true],
    ["v_prediction", false],
    ["v_prediction", true],
  ] as const)("on %s, min-SNR %s: diffusers' loss and gradients", async (prediction, weighted) => {
    const { configs, weights, feeds } = await unetFixture(name.split("-")[0]!);
    const expected = await readTensors(`lora/${name}/expected.safetensors`);
    const lora = await readLoraFile(`lora/${name}/pytorch_lora_weights.safetensors`);
    const shape = denoiseShape(feeds);
    const bare = denoised(configs, givenCondition(configs, shape), shape);
    const { sites, values } = attachImageAdapter(
      adapterFromDiffusers(lora),
      loraCandidates([bare]),
    );
    const plan: ImagePlan = { configs, sites, checkpointing: weighted };
    const engine = createOnnxEngine({ weights, threads: 1 });
    for (const [key, value] of values) await engine.set(key, convert(value, "f32"));
    const batch = trainingBatch(feeds, expected.get("noise")!, prediction, weighted);
    const key = prediction + (weighted ? ".min_snr" : "");
    for (const [got, want] of [
      [batch["sample"]!, expected.get("noisy")!],
      [batch["target"]!, expected.get(`${prediction}.target`)!],
    ])
      expect(farthest(got!, want!)).toBeLessThan(1e-5);
    const graph = imageTrainingGraph(plan, shape);
    const program = await engine.compile(graph);
    const { loss } = await program.run(batch);
    const wanted = Number(expected.get(`${key}.loss`)!.data[0]);
    expect(Math.abs(Number(loss!.data[0]) - wanted)).toBeLessThan(1e-4 * wanted);
    const gradients = [...expected.keys()].filter((other) => other.startsWith(`${key}.grad.`));
    expect(gradients.length).toBeGreaterThan(20);
    for (const entry of gradients) {
      const [, module, part] = /\.grad\.(.+)\.(lora_[AB]\.weight)$/.exec(entry)!;
      const got = await engine.get(`${peftKey(`unet.${module!}`, part!)}.grad`);
      const want = expected.get(entry)!;
      expect(farthest(got, want), entry).toBeLessThan(1e-4 * norm(want) + 1e-7);
    }
    await engine.dispose();
  });
});
