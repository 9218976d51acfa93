import { cp, mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adapterOfModules } from "../src/adapter/adapter-modules.ts";
import {
  createPipeline,
  type ImagePipeline,
  loadPipeline,
  type WeightedAdapter,
} from "../src/api/image-pipeline.ts";
import { imagine } from "../src/api/imagine.ts";
import { mergePipeline, unmergePipeline } from "../src/api/merge-pipeline.ts";
import { loadImageAdapter, saveImageAdapter } from "../src/host/image-adapter-files.ts";
import { openSingleFile } from "../src/host/open-single-file.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";
import { lorikeet } from "./support/command.ts";
import { diffusionFolder, farthest } from "./support/diffusion.ts";
import { writeSingleFile } from "./support/single-file.ts";

const sd1 = join(diffusionFolder, "sd1");
const lora = (name: string): string => join(diffusionFolder, "lora", name);
let folder: string;
let base: ImagePipeline;
let plain: Tensor;
let adapters: WeightedAdapter[];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "lorikeet-merge-"));
  base = await loadPipeline(sd1, { threads: 1 });
  plain = await latents(base);
  const text = "text_encoder.text_model.encoder.layers.0.mlp.fc1";
  const values = (...shape: number[]): Tensor => tensor("f32", shape, Float32Array.from({ length: shape[0]! * shape[1]! }, (_, i) => Math.sin(i) / 4)); // prettier-ignore
  const parts = new Map([["lora_A.weight", values(2, 32)], ["lora_B.weight", values(48, 2)]]); // prettier-ignore
  adapters = [
    { adapter: await loadImageAdapter(lora("sd1-attention")), weight: 0.7 },
    { adapter: await loadImageAdapter(lora("sd1-everything/kohya.safetensors")), weight: -0.4 },
    { adapter: adapterOfModules(new Map([[text, { parts, alpha: 3 }]]), {}) },
  ];
});
afterAll(() => rm(folder, { recursive: true }));

async function latents(pipeline: ImagePipeline): Promise<Tensor> {
  const size = { width: 24, height: 16, steps: 2, guidance: 2 };
  return (await imagine(pipeline, { prompt: "a cat", ...size })).latents;
}

describe("merging several weighted adapters of UNet and text encoder", () => {
  it("gives a folder that makes the image of base and adapters; unmerging gives the base's", async () => {
    const adapted = base.withAdapters(adapters);
    const out = join(folder, "merged");
    const { changed } = await mergePipeline(adapted, out);
    expect(changed).toContain("text_encoder.text_model.encoder.layers.0.mlp.fc1.weight");
    const merged = await loadPipeline(out, { threads: 1 });
    const want = await latents(adapted);
    expect(farthest(await latents(merged), want)).toBeLessThan(1e-4);
    expect(farthest(want, plain)).toBeGreaterThan(0.01);
    // what no adapter touches is the base's, byte by byte
    for (const file of [
      "vae/diffusion_pytorch_model.safetensors",
      "model_index.json",
      "unet/config.json",
    ])
      // prettier-ignore
      expect(await readFile(join(out, file))).toEqual(await readFile(join(sd1, file)));
    const again = join(folder, "unmerged");
    const options = { base: base.checkpoint };
    const { errors } = await unmergePipeline(merged.withAdapters(adapters), again, options);
    expect(errors).toHaveLength(changed.length);
    for (const { weight, bound, difference } of errors)
      expect(difference, weight).toBeLessThanOrEqual(bound);
    const restored = await loadPipeline(again, { threads: 1 });
    expect(farthest(await latents(restored), plain)).toBeLessThan(1e-4);
  });

  it("takes a single file for a base, and writes a folder", async () => {
    await mkdir(join(folder, "single"));
    const file = join(folder, "single/model.safetensors");
    await writeSingleFile(base.checkpoint, file);
    const { configs } = base.checkpoint;
    const single = createPipeline(await openSingleFile(file, { configs }), { threads: 1 });
    const out = join(folder, "from-single");
    await mergePipeline(single.withAdapters(adapters), out);
    const merged = await loadPipeline(out, { threads: 1 });
    const want = await latents(base.withAdapters(adapters));
    expect(farthest(await latents(merged), want)).toBeLessThan(1e-4);
    const tokenizer = JSON.parse(await readFile(join(out, "tokenizer/tokenizer_config.json"), "utf8")) as object; // prettier-ignore
    expect(tokenizer).toMatchObject({ tokenizer_class: "CLIPTokenizer", model_max_length: 16 });
    const index = JSON.parse(await readFile(join(out, "model_index.json"), "utf8")) as object;
    expect(index).toMatchObject({ _class_name: "StableDiffusionPipeline", unet: ["diffusers", "UNet2DConditionModel"] }); // prettier-ignore
  });

  it("rounds to another type on request, and refuses what overflows it", async () => {
    const out = join(folder, "half");
    await mergePipeline(base.withAdapters(adapters), out, { dtype: "f16" });
    const { weights } = (await loadPipeline(out)).checkpoint;
    for (const name of ["unet.conv_in.weight", "vae.decoder.conv_in.weight"])
      expect(weights.get(name).dtype).toBe("f16");
    const huge = [{ ...adapters[0]!, weight: 1e8 }];
    const failing = mergePipeline(base.withAdapters(huge), join(folder, "inf"), { dtype: "f16" });
    await expect(failing).rejects.toMatchObject({ code: "not-finite" });
    expect(await readdir(folder)).not.toContain("inf");
  });

  it("without adapters copies the base; DoRA is not merged beside another", async () => {
    const out = join(folder, "plain");
    await mergePipeline(base, out);
    for (const file of [
      "unet/diffusion_pytorch_model.safetensors",
      "text_encoder/model.safetensors",
    ])
      // prettier-ignore
      expect(await readFile(join(out, file))).toEqual(await readFile(join(sd1, file)));
    const module = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    const ones = (...shape: number[]): Tensor => tensor("f32", shape, new Float32Array(shape.reduce((x, y) => x * y)).fill(1)); // prettier-ignore
    const parts = new Map([["lora_A.weight", ones(1, 16)], ["lora_B.weight", ones(16, 1)], ["lora_magnitude_vector", ones(16)]]); // prettier-ignore
    const dora = { adapter: adapterOfModules(new Map([[module, { parts, alpha: 1 }]]), {}) };
    const alone = join(folder, "dora");
    await mergePipeline(base.withAdapters([dora]), alone);
    const merged = await latents(await loadPipeline(alone, { threads: 1 }));
    expect(farthest(merged, await latents(base.withAdapters([dora])))).toBeLessThan(1e-4);
    const both = mergePipeline(base.withAdapters([dora, adapters[0]!]), join(folder, "both"));
    await expect(both).rejects.toMatchObject({ code: "cannot-merge" });
  });
});

it("the command merges and unmerges, and refuses adapters of other bases", async () => {
  const source = join(folder, "base");
  await cp(sd1, source, { recursive: true });
  const [out, again] = [join(folder, "by-command"), join(folder, "by-command-back")];
  const merge = ["merge", "--model", source, "--adapter", `${lora("sd1-everything")}:0.5`];
  const merged = await lorikeet(...merge, "-o", out, "--json");
  expect([merged.code, merged.err]).toEqual([0, ""]);
  expect((JSON.parse(merged.out) as { changed: string[] }).changed).toHaveLength(105);
  const unmerge = ["unmerge", "--model", out, "--adapter", `${lora("sd1-everything")}:0.5`];
  const unmerged = await lorikeet(...unmerge, "-o", again, "--base", source);
  expect(unmerged.code).toBe(0);
  expect(unmerged.out).toContain("105 weights unmerged");
  const other = await lorikeet("merge", "--model", source, "--adapter", lora("sdxl-attention"), "-o", join(folder, "x")); // prettier-ignore
  expect(other.err).toContain("Stable Diffusion XL");
  const gguf = await lorikeet(...merge, "-o", join(folder, "x"), "--to", "gguf");
  expect([gguf.code, await readdir(folder)]).toEqual([2, expect.not.arrayContaining(["x"])]);
});

it("an adapter with NaN is refused wherever it is used, and nothing is written", async () => {
  const read = await loadImageAdapter(lora("sd1-attention"));
  for (const { data } of [...read.tensors.values()].slice(-1)) data[0] = NaN;
  const adapter = join(folder, "nan.safetensors");
  await saveImageAdapter(read, adapter, "diffusers");
  const before = await readdir(folder);
  const out = join(folder, "must-not-appear");
  const flags = ["--model", sd1, "--adapter", adapter, "-o", out];
  for (const told of [
    await lorikeet("merge", "--no-safe", ...flags),
    await lorikeet("unmerge", ...flags),
    await lorikeet("convert", adapter, "--to", "peft", "-o", out),
    await lorikeet("imagine", "-p", "a cat", ...flags),
  ])
    expect([told.code, told.err]).toEqual([1, expect.stringContaining("error[not-finite]")]);
  expect(await readdir(folder)).toEqual(before);
});
