import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { readPngText } from "../src/formats/png-text.ts";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import { serializeSafetensors } from "../src/formats/safetensors-write.ts";
import { tensor } from "../src/tensor/tensor.ts";
import { lorikeet } from "./support/command.ts";
import { diffusionFolder } from "./support/diffusion.ts";

const sd1 = join(diffusionFolder, "sd1");
const lora = (name: string): string => join(diffusionFolder, "lora", name);

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lorikeet-imagine-"));
});
afterEach(() => rm(folder, { recursive: true }));

function make(...flags: string[]): ReturnType<typeof lorikeet> {
  const given = ["--model", sd1, "--threads", "1", "--steps", "2", "--size", "24x16"];
  return lorikeet("imagine", ...given, ...flags);
}

it("writes PNG files that say how they were made, the same for the same seed", async () => {
  const flags = ["--prompt", "a cat", "--negative-prompt", "blurry", "--sampler", "dpm++"];
  const adapters = ["-a", `${lora("sd1-attention/kohya.safetensors")}:0.5`, "-a", lora("sd1-everything/pytorch_lora_weights.safetensors")]; // prettier-ignore
  const out = join(folder, "cat.png");
  const { code, out: text } = await make(...flags, ...adapters, "--count", "2", "--seed", "7", "-o", out, "--json"); // prettier-ignore
  expect(code).toBe(0);
  const paths = [1, 2].map((i) => join(folder, `cat-${i}.png`));
  const settings = {
    prompt: "a cat",
    negativePrompt: "blurry",
    steps: 2,
    guidance: 7.5,
    seed: 7,
    sampler: "dpm++",
    eta: 0,
    width: 24,
    height: 16,
    model: "sd1",
    adapters: [
      { name: "kohya", weight: 0.5 },
      { name: "sd1-everything", weight: 1 },
    ],
  };
  expect(JSON.parse(text)).toMatchObject({
    images: [
      { path: paths[0], ...settings },
      { path: paths[1], ...settings, seed: 8 },
    ],
  });
  const png = await readFile(paths[0]!);
  const texts = readPngText(png);
  expect(texts["parameters"]).toMatch(
    /^a cat <lora:kohya:0.5> <lora:sd1-everything:1>\nNegative prompt: blurry\nSteps: 2, Sampler: DPM\+\+ 2M, CFG scale: 7.5, Seed: 7, Size: 24x16, Model: sd1, Version: lorikeet \d/,
  );
  expect(JSON.parse(texts["lorikeet"]!)).toMatchObject(settings);
  const { info, data } = await sharp(png).raw().toBuffer({ resolveWithObject: true });
  expect(info).toMatchObject({ width: 24, height: 16, channels: 3 });
  const again = join(folder, "again.png");
  const second = await make(...flags, ...adapters, "--seed", "8", "-o", again);
  expect([second.code, second.out]).toEqual([0, `${again}\n`]);
  expect(await readFile(again)).toEqual(await readFile(paths[1]!));
  expect(new Set(data).size).toBeGreaterThan(10);
});

it("takes adapters by their hub ids, as do merge and inspect", async () => {
  const repository = join(folder, "hub/models--some--style");
  const snapshot = join(repository, "snapshots/c0ffee");
  await mkdir(join(repository, "refs"), { recursive: true });
  await writeFile(join(repository, "refs/main"), "c0ffee");
  await cp(lora("sd1-everything/pytorch_lora_weights.safetensors"), join(snapshot, "pytorch_lora_weights.safetensors")); // prettier-ignore
  vi.stubEnv("HF_HOME", folder).stubEnv("HF_HUB_CACHE", join(folder, "hub")).stubEnv("HF_HUB_OFFLINE", "1"); // prettier-ignore
  const [local, hub] = ["local", "hub"].map((name) => join(folder, `${name}.png`)) as [string, string]; // prettier-ignore
  await make("-p", "a cat", "-a", `${lora("sd1-everything/pytorch_lora_weights.safetensors")}:0.5`, "-o", local); // prettier-ignore
  const { code, err } = await make("-p", "a cat", "-a", "some/style:0.5", "-o", hub, "--json");
  expect(code, err).toBe(0);
  const pixels = (path: string): Promise<Buffer> => sharp(path).raw().toBuffer();
  expect(await pixels(hub)).toEqual(await pixels(local));
  const absent = await make("-p", "a cat", "-a", "some/absent", "-o", join(folder, "x.png"));
  expect(absent.err).toContain("error[hub-offline]: Expected some/absent in the cache");
  const inspected = await lorikeet("inspect", "some/style");
  expect(inspected.out, inspected.err).toContain("LoRA (diffusers), r 3");
  const out = join(folder, "merged");
  const merged = await lorikeet("merge", "--model", sd1, "-a", "some/style", "-o", out);
  expect(merged.out, merged.err).toMatch(/\d+ weights merged/);
  vi.unstubAllEnvs();
});

it("refuses what it cannot do before anything is written", async () => {
  const cases: readonly (readonly [string[], string, string])[] = [
    [["--size", "24x20"], "image-size", "24 × 24"],
    [["--steps", "1001"], "image-options", "steps 1001 (1 to 1000)"],
    [["-a", lora("sdxl-attention")], "adapter-mismatch", "Stable Diffusion XL"],
    [["-a", join(folder, "none")], "file-not-found", "none"],
    [["-a", `${lora("sd1-attention/kohya.safetensors")}:1e39`], "file-not-found", "1e39"],
    [["-a", `${lora("sd1-attention/kohya.safetensors")}:${"9".repeat(38)}`], "non-finite-latents", "adapter's weight"], // prettier-ignore
    [["--model", folder], "pipeline-layout", "unet/config.json"],
    [["--sampler", "euler3"], "usage", "euler"],
    [["--count", "0"], "usage", "at least 1"],
  ];
  for (const [flags, code, words] of cases) {
    const out = join(folder, "x.png");
    const result = await make("--prompt", "a cat", "-o", out, ...flags, "--json");
    expect([result.code === 0, result.out]).toEqual([false, ""]);
    const { error } = JSON.parse(result.err) as { error: Record<string, string> };
    expect(error["code"], flags.join(" ")).toBe(code);
    expect(JSON.stringify(error)).toContain(words);
  }
  expect(await readdir(folder)).toEqual([]);
});

it("says so when the autoencoder overflows, in place of a black image", async () => {
  const broken = join(folder, "broken");
  await cp(sd1, broken, { recursive: true });
  const file = join(broken, "vae/diffusion_pytorch_model.safetensors");
  const tensors = new Map((await decodeSafetensors(await readFile(file))).tensors);
  const { shape } = tensors.get("decoder.conv_out.bias")!;
  tensors.set("decoder.conv_out.bias", tensor("f32", shape, new Float32Array(shape[0]!).fill(NaN)));
  await writeFile(file, serializeSafetensors(tensors));
  const { err } = await make("--prompt", "a cat", "--model", broken, "-o", join(folder, "x.png"));
  expect(err).toContain("non-finite-pixels");
  expect(await readdir(folder)).toEqual(["broken"]);
});

it("keeps images that are there unless told otherwise", async () => {
  const out = join(folder, "x.png");
  expect((await make("--prompt", "a cat", "-o", out)).code).toBe(0);
  const first = await readFile(out);
  expect((await make("--prompt", "a dog", "-o", out)).err).toContain("output-exists");
  expect(await readFile(out)).toEqual(first);
  expect((await make("--prompt", "a dog", "-o", out, "--overwrite")).code).toBe(0);
  expect(await readFile(out)).not.toEqual(first);
});
