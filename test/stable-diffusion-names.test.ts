/** @file Names and shapes of the published Stable Diffusion models: folders, single files, and kohya's LoRA modules. */
import { copyFile, mkdir, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { fromKohyaName, toKohyaName } from "../src/adapter/formats/kohya-names.ts";
import { loadPipeline } from "../src/api/image-pipeline.ts";
import { knownConfigs, type KnownModel } from "../src/diffusion/known-configs.ts";
import { idleLayers, pipelineLayers } from "../src/diffusion/pipeline-graphs.ts";
import { singleFileConfigs } from "../src/diffusion/pipeline-index.ts";
import { unetLayout } from "../src/formats/stable-diffusion/unet-names.ts";
import { sizeOf } from "../src/tensor/shape.ts";
import { diffusionFolder } from "./support/diffusion.ts";

type Shapes = Readonly<Record<string, readonly number[]>>;
type ByModel<T> = Readonly<Record<KnownModel, T>>;

async function read<T>(name: string): Promise<T> {
  const bytes = await readFile(join(diffusionFolder, "names", name));
  return JSON.parse(gunzipSync(bytes).toString("utf8")) as T;
}

const checkpoints = await read<ByModel<{ folder: Readonly<Record<string, Shapes>>; file: Shapes }>>("checkpoints.json.gz"); // prettier-ignore
const kohya = await read<ByModel<Shapes>>("kohya.json.gz");
const models: readonly KnownModel[] = ["sd1", "sd2", "sdxl"];

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lorikeet-names-"));
});
afterEach(() => rm(folder, { recursive: true }));

/** A safetensors file (f16) whose bytes are a hole: a header with `shapes`, and the size that it asks for. */
async function writeHole(path: string, shapes: Shapes): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  let end = 0;
  const entries = Object.entries(shapes).map(([name, shape]) => {
    const start = end;
    end += 2 * sizeOf(shape);
    return [name, { dtype: "F16", shape, data_offsets: [start, end] }];
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const file = await open(path, "w");
  await file.write(Buffer.concat([length, header]));
  await file.truncate(8 + header.length + end);
  await file.close();
}

async function copyTokenizer(target: string): Promise<void> {
  await mkdir(target, { recursive: true });
  for (const name of ["vocab.json", "merges.txt"])
    await copyFile(join(diffusionFolder, "sd1/tokenizer", name), join(target, name));
}

describe.each(models)("%s", (model) => {
  it("opens as a folder in diffusers layout: every weight of UNet and autoencoder is used", async () => {
    const { folder: parts } = checkpoints[model];
    const configs = singleFileConfigs(knownConfigs(model));
    for (const [part, shapes] of Object.entries(parts)) {
      const stem = part.startsWith("text_encoder") ? "model" : "diffusion_pytorch_model";
      await writeHole(join(folder, part, `${stem}.safetensors`), shapes);
      await writeFile(join(folder, part, "config.json"), JSON.stringify(configs[part]));
    }
    for (const suffix of Object.keys(parts).length > 3 ? ["", "_2"] : [""])
      await copyTokenizer(join(folder, `tokenizer${suffix}`));
    await mkdir(join(folder, "scheduler"));
    await writeFile(join(folder, "scheduler/scheduler_config.json"), "{}");
    const { checkpoint } = await loadPipeline(folder);
    const stored = Object.entries(parts).flatMap(([part, shapes]) => Object.keys(shapes).map((name) => `${part}.${name}`)); // prettier-ignore
    expect(new Set(checkpoint.weights.names)).toEqual(new Set(stored));
  });

  it("opens as one file in the original layout: what is left over is no weight", async () => {
    const file = join(folder, "model.safetensors");
    await writeHole(file, checkpoints[model].file);
    await copyTokenizer(join(folder, "tokenizer"));
    // throws when a weight is missing or has another shape
    const { checkpoint } = await loadPipeline(file);
    const texts = Object.entries(checkpoints[model].folder).flatMap(([part, shapes]) =>
      Object.keys(shapes).map((name) => `${part}.${name}`),
    );
    const ours = new Set(checkpoint.weights.names);
    expect(texts.filter((name) => !ours.has(name) && !name.endsWith("position_ids"))).toEqual([]);
  });

  it("has kohya's names for its LoRA modules, with the shapes of our layers", () => {
    const configs = knownConfigs(model);
    const layout = unetLayout(configs.unet);
    const all = [...pipelineLayers(configs), ...idleLayers(configs)];
    const layers = new Map(all.map((layer) => [layer.module, layer]));
    const isXl = model === "sdxl";
    const named = new Set<string>();
    for (const [name, [out, inner, ...kernel]] of Object.entries(kohya[model])) {
      const module = fromKohyaName(name, layout);
      const layer = layers.get(module!);
      expect(layer, `${name} as ${module!}`).toBeDefined();
      expect([layer!.outFeatures, layer!.inFeatures], name).toEqual([out, inner]);
      expect(sizeOf(layer!.kernel), name).toBe(sizeOf(kernel));
      expect(toKohyaName(module!, { isXl, layout })).toBe(name);
      named.add(module!);
    }
    const missing = [...layers.keys()].filter((module) => !named.has(module));
    // kohya leaves alone what is outside blocks, and embeddings
    expect(missing.filter((module) => /blocks|mid_block|layers/.test(module))).toEqual([]);
  });
});
