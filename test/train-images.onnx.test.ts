import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadPipeline } from "../src/api/image-pipeline.ts";
import { imagine } from "../src/api/imagine.ts";
import { trainImages } from "../src/api/train-images.ts";
import type { TrainOptions } from "../src/api/train-options.ts";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import { serializeSafetensors } from "../src/formats/safetensors-write.ts";
import { loadImageAdapter } from "../src/host/image-adapter-files.ts";
import type { TrainEvent } from "../src/train/events.ts";
import { lorikeet } from "./support/command.ts";
import { diffusionFolder, farthest } from "./support/diffusion.ts";

const MODEL = join(diffusionFolder, "sd1");
const LORA = "pytorch_lora_weights.safetensors";
let root: string;
let photos: string;

/** An image file of one colour with a darker stripe. */
async function picture(path: string, width: number, height: number, hue: number): Promise<void> {
  const rgb = new Uint8Array(3 * width * height).map((_, i) => (i % 3 === 0 ? hue : (i * 7) % 256));
  await sharp(rgb, { raw: { width, height, channels: 3 } }).toFile(path);
}

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "lorikeet-train-images-"));
  photos = join(root, "photos");
  await mkdir(photos);
  const lines: string[] = [];
  for (let i = 0; i < 5; i++) {
    const name = `${i}.${i === 1 ? "jpg" : "png"}`;
    await picture(join(photos, name), i < 3 ? 20 : 40, 24, 40 * i);
    lines.push(JSON.stringify({ file_name: name, text: i < 3 ? "a cat" : "a dog" }));
  }
  await writeFile(join(photos, "metadata.jsonl"), lines.join("\n"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** Trains on the photos, with everything that is random, into the folder `name`. */
async function trained(name: string, options: Partial<TrainOptions>): Promise<TrainEvent[]> {
  const pipeline = await loadPipeline(MODEL);
  const run = trainImages(pipeline, {
    ...{ data: photos, outputDir: join(root, name), resolution: 16, threads: 1 },
    ...{ batchSize: 2, r: 2, loraAlpha: 4, lrSchedulerType: "constant", report: false },
    ...options,
  });
  const events: TrainEvent[] = [];
  for await (const event of run) events.push(event);
  return events;
}

const everything: Partial<TrainOptions> = {
  randomFlip: true,
  captionDropout: 0.3,
  snrGamma: 5,
  noiseOffset: 0.1,
  classPrompt: "a cat",
  numClassImages: 1,
  trainTextEncoder: true,
  loraDropout: 0.2,
  sampleGuidance: 1,
};
const stepsOf = (events: readonly TrainEvent[]): number[] =>
  events.filter((event) => event.type === "step").map(({ loss }) => loss);

test("a run that is resumed gives the bytes of one that was not, with all that is random", async () => {
  const whole = await trained("whole", { ...everything, maxSteps: 4 });
  expect(stepsOf(whole)).toHaveLength(4);
  const classes = await readdir(join(root, "whole/class-images"));
  expect(classes).toEqual(["0000.png"]);
  const classDataDir = join(root, "whole/class-images");
  const half = await trained("half", { ...everything, classDataDir, maxSteps: 2 });
  const rest = await trained("half", { ...everything, classDataDir, maxSteps: 4, resume: true });
  expect([...stepsOf(half), ...stepsOf(rest)]).toEqual(stepsOf(whole));
  const [a, b] = await Promise.all(["whole", "half"].map((name) => readFile(join(root, name, LORA)))); // prettier-ignore
  expect(a!.equals(b!)).toBe(true);
}, 300_000);

test("adapters are saved for diffusers and PEFT, act the same, and change the image", async () => {
  const targets = ["to_q", "to_out.0", "ff.net.0.proj", "conv1", "conv_shortcut", "proj_in"];
  const events = await trained("formats", {
    ...{ maxSteps: 6, learningRate: 1e-2, targetModules: targets, trainTextEncoder: true },
    ...{ predictionType: "v_prediction", rescaleBetasZeroSnr: true, rankPattern: { conv1: 3 } },
  });
  expect(events.at(-1)).toMatchObject({ type: "end", step: 6, tokens: 10 });
  const folder = join(root, "formats");
  const adapter = await loadImageAdapter(join(folder, LORA));
  const modules = [...adapter.tensors.keys()].join();
  for (const part of [...targets, "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"])
    expect(modules).toContain(`.${part}.lora_A`);
  await rm(join(folder, LORA));
  const folders = await loadImageAdapter(folder); // now PEFT's alone
  const pipeline = await loadPipeline(MODEL, { threads: 1 });
  const options = { prompt: "a cat", steps: 2, width: 16, height: 16, guidance: 1 };
  const base = (await imagine(pipeline, options)).latents;
  const one = (await imagine(pipeline.withAdapters([{ adapter }]), options)).latents;
  const other = (await imagine(pipeline.withAdapters([{ adapter: folders }]), options)).latents;
  expect(farthest(one, other)).toBe(0);
  expect(farthest(one, base)).toBeGreaterThan(1e-3);
}, 300_000);

test("SDXL trains on sizes and pooled text, with its text encoders and without", async () => {
  const model = join(root, "sdxl");
  await cp(join(diffusionFolder, "sdxl-pipeline"), model, { recursive: true });
  await cp(join(diffusionFolder, "sdxl/unet"), join(model, "unet"), { recursive: true });
  await cp(join(MODEL, "vae"), join(model, "vae"), { recursive: true });
  const pipeline = await loadPipeline(model);
  const losses: number[] = [];
  for (const trainTextEncoder of [false, true]) {
    const shape = { resolution: 16, r: 2, batchSize: 2, threads: 1, maxSteps: 1 };
    const run = trainImages(pipeline, { data: photos, ...shape, trainTextEncoder });
    for await (const event of run) if (event.type === "step") losses.push(event.loss);
    const modules = [...(await run.adapter()).tensors.keys()].join();
    expect(modules.includes("text_encoder_2.")).toBe(trainTextEncoder);
    const options = { prompt: "a cat", steps: 1, width: 16, height: 16, guidance: 1 };
    expect((await imagine(await run.model(), options)).rgb).toHaveLength(16 * 16 * 3);
  }
  // the same batch: embeddings that are cached are those that are computed in the step
  expect(Math.abs(losses[0]! - losses[1]!)).toBeLessThan(1e-5 * losses[0]!);
}, 300_000);

test("prior images count as much as they are told to, in batches of their own", async () => {
  const dogs = join(root, "dogs");
  await mkdir(dogs);
  for (let i = 0; i < 3; i++) await picture(join(dogs, `${i}.png`), 16, 16, 90 * i);
  const prior = { classPrompt: "a dog", classDataDir: dogs, numClassImages: 3 };
  const first = async (name: string, options: Partial<TrainOptions>): Promise<number> =>
    stepsOf(await trained(name, { ...options, maxSteps: 1 }))[0]!;
  const none = await first("prior-0", { ...prior, priorLossWeight: 0 });
  const one = await first("prior-1", { ...prior, priorLossWeight: 1 });
  const two = await first("prior-2", { ...prior, priorLossWeight: 2 });
  expect(one - none).toBeGreaterThan(0.1);
  expect(Math.abs(two - one - (one - none))).toBeLessThan(1e-5 * two);
  expect(none).toBeCloseTo(await first("prior-none", {}), 6);
}, 300_000);

test("where the best adapter is kept, the last images are its own", async () => {
  const events = await trained("best", {
    // far too fast: the loss rises after the first step
    ...{ maxSteps: 3, learningRate: 0.5, evalSteps: 1, evalData: [photos] },
    ...{ loadBestModelAtEnd: true, samplePrompts: ["a cat"], sampleGuidance: 1 },
  });
  const { best } = events.findLast((event) => event.type === "end")!;
  expect(best!.step).toBeLessThan(3);
  const drawn = events.filter((event) => event.type === "image");
  expect(drawn.map(({ step }) => step)).toEqual([0, best!.step]);
  const adapter = await loadImageAdapter(join(root, "best"));
  const pipeline = (await loadPipeline(MODEL, { threads: 1 })).withAdapters([{ adapter }]);
  const options = { prompt: "a cat", seed: 42, width: 16, height: 16, guidance: 1 };
  const { rgb } = await imagine(pipeline, options);
  const shown = await sharp(drawn.at(-1)!.path).raw().toBuffer();
  expect(Math.max(...rgb.map((value, i) => Math.abs(value - shown[i]!)))).toBeLessThanOrEqual(1);
}, 300_000);

describe("lorikeet train --task text-to-image", () => {
  const command = (...flags: string[]): ReturnType<typeof lorikeet> =>
    lorikeet(
      ...["train", "--task", "text-to-image", "--model", MODEL, "--max-steps", "2"],
      ...["--r", "2", "--threads", "1", "--resolution", "16", ...flags],
    );

  test("draws sample prompts before, while and after it trains, and shows them in the report", async () => {
    const output = join(root, "command");
    const { code, out, err } = await command(
      ...["--data", photos, "--output-dir", output, "--sample-prompts", "a <cat>"],
      ...["--sample-steps", "1", "--sample-guidance", "1", "--validation-split", "0.3"],
      "--aspect-buckets",
    );
    expect([code, err.includes("evaluation loss")]).toEqual([0, true]);
    expect(err).toContain("images/s");
    expect(err).not.toContain("perplexity");
    expect(out).toContain(`adapter: ${output}/${LORA}`);
    expect(await readdir(join(output, "samples"))).toEqual(
      [0, 1, 2].map((step) => `step-00000${step}-0.png`),
    );
    const files = await readdir(output);
    for (const name of [LORA, "unet", "loss.svg", "metrics.jsonl", "train-config.yaml"])
      expect(files).toContain(name);
    const report = await readFile(join(output, "report.html"), "utf8");
    expect(report.match(/<img src="data:image\/webp;base64,[^"]{30,}" alt="a &lt;cat&gt;/g)).toHaveLength(3); // prettier-ignore
    expect(report.match(/alt="training image"/g)).toHaveLength(5);
    expect((await command("--data", photos, "--output-dir", output)).err).toContain(
      "error[output-exists]",
    );
  }, 300_000);

  /** Runs on `data`, expects the error `code` with all of `texts`, and that nothing was written. */
  async function expectError(
    flags: readonly string[],
    code: string,
    ...texts: readonly string[]
  ): Promise<void> {
    const output = join(root, `failed-${code}-${texts.length}`);
    const result = await command("--output-dir", output, ...flags);
    expect(result.err).toContain(`error[${code}]: `);
    for (const text of texts) expect(result.err).toContain(text);
    expect(result.err).not.toContain("    at "); // no stack
    expect(result.code).toBe(code === "config-invalid" ? 2 : 1);
    await expect(readdir(output)).rejects.toMatchObject({ code: "ENOENT" });
  }

  test("images that cannot be read are counted and left out; none left is an error", async () => {
    const mixed = join(root, "mixed");
    await cp(photos, mixed, { recursive: true });
    await writeFile(join(mixed, "0.png"), "");
    await writeFile(join(mixed, "1.jpg"), "no image");
    const png = await readFile(join(photos, "2.png"));
    await writeFile(join(mixed, "2.png"), png.subarray(0, png.length / 2));
    await rm(join(mixed, "3.png"));
    const { code, err } = await command("--data", mixed, "--output-dir", join(root, "mixed-out"), "--exclude-modules", "to_z"); // prettier-ignore
    expect(code).toBe(0);
    expect(err).toContain('warning[lora-unused]: exclude_modules "to_z" (did you mean "to_q"');
    expect(err).toContain("warning[images-skipped]: 4 of 5 images cannot be read");
    expect(err).toContain("3.png (no such file)");
    await writeFile(join(mixed, "4.png"), "");
    await expectError(["--data", mixed], "no-images", "none of 5", "0.png");
  }, 180_000);

  test("missing captions, unless all get the same", async () => {
    const bare = join(root, "bare");
    await mkdir(bare);
    await picture(join(bare, "a.png"), 16, 16, 0);
    await expectError(["--data", bare], "image-captions", "a.png has no caption", "instance_prompt"); // prettier-ignore
    const output = join(root, "bare-out");
    const given = ["--instance-prompt", "a photo of sks cat", "--no-report"];
    expect((await command("--data", bare, "--output-dir", output, ...given)).code).toBe(0);
  }, 180_000);

  test("sizes, layouts, targets and settings that do not go together", async () => {
    const data = ["--data", photos];
    await expectError([...data, "--resolution", "20"], "image-size", "20 × 20");
    await expectError([...data, "--model", photos], "pipeline-layout", "unet/config.json");
    await expectError([...data, "--target-modules", "to_w"], "lora-targets", '"to_q"');
    await expectError([...data, "--packing"], "config-invalid", "`packing`");
    const zero = ["--rescale-betas-zero-snr", "true"];
    await expectError([...data, ...zero], "scheduler-config", "v_prediction");
  }, 180_000);

  test("a step that cannot fit into memory is refused before anything is made", async () => {
    const batch = ["--per-device-train-batch-size", "100000000", "--class-prompt", "a cat"];
    const words = ["activations of 100000000 × 16×16 pixels", "--resolution"];
    await expectError(["--data", photos, ...batch], "out-of-memory", ...words);
  }, 180_000);

  test("an autoencoder that gives NaN", async () => {
    const model = join(root, "nan");
    await cp(MODEL, model, { recursive: true });
    const file = join(model, "vae/diffusion_pytorch_model.safetensors");
    const { tensors } = await decodeSafetensors(await readFile(file), file);
    const key = "encoder.conv_out.bias";
    const broken = tensors.get(key)!;
    const data = new Float32Array(broken.data.length).fill(NaN);
    await writeFile(file, serializeSafetensors(new Map([...tensors, [key, { ...broken, data }]])));
    await expectError(["--data", photos, "--model", model], "non-finite-latents", "0.png");
  }, 180_000);
});
