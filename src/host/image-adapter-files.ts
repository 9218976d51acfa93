import { readdir, readFile, stat } from "node:fs/promises";
import { extname, join } from "node:path";
import type { Adapter } from "../adapter/adapter.ts";
import {
  adapterFromDiffusers,
  adapterToDiffusers,
  DIFFUSERS_FILE,
  modelAdapters,
} from "../adapter/formats/diffusers.ts";
import { adapterFromModels, adapterFromPeft } from "../adapter/formats/image-peft.ts";
import { adapterFromKohya, adapterToKohya, isKohya } from "../adapter/formats/kohya.ts";
import type { LoraFile } from "../adapter/formats/lora-file.ts";
import { baseOfAdapter, PIPELINE_MODELS } from "../adapter/image-adapter.ts";
import { LorikeetError } from "../errors.ts";
import { serializeSafetensors } from "../formats/safetensors-write.ts";
import { decodeSafetensors } from "../formats/safetensors.ts";
import { SDXL_LAYOUT, type UnetLayout } from "../formats/stable-diffusion/unet-names.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { loadAdapterFolder, saveAdapter } from "./adapter-files.ts";
import { openTorch } from "./checkpoint-torch.ts";
import { asFileError } from "./file-errors.ts";
import { isFile, writeAtomically } from "./files.ts";

/** Ways that image adapters are saved. */
export const IMAGE_ADAPTER_FORMATS = ["diffusers", "kohya", "peft"] as const;
export type ImageAdapterFormat = (typeof IMAGE_ADAPTER_FORMATS)[number];

/** What kohya's names need to know of a UNet that is not one of the published. */
export interface ImageAdapterBase {
  readonly layout?: UnetLayout;
  /** Default: what the adapter's modules tell. */
  readonly isXl?: boolean;
}

/**
 * An image adapter: diffusers' or kohya's `.safetensors` file (`.bin` of old versions), a folder with one, or a folder of
 * PEFT's: one adapter, or `unet`, `text_encoder`, `text_encoder_2` with one each.
 * @throws LorikeetError `file-not-found`, `adapter-tensors`, `unsupported-lora-variant`, and what the formats throw
 */
export async function loadImageAdapter(
  path: string,
  { layout = SDXL_LAYOUT }: ImageAdapterBase = {},
): Promise<Adapter> {
  const info = await stat(path).catch((cause: unknown) => {
    throw asFileError(cause, path, "readable");
  });
  const file = info.isDirectory() ? await fileIn(path) : path;
  if (file === undefined) return loadFolders(path);
  const content = await readLoraFile(file);
  return isKohya(content.tensors.keys())
    ? adapterFromKohya(content, layout)
    : adapterFromDiffusers(content);
}

/**
 * Writes `adapter` to `path`: for diffusers and kohya a `.safetensors` file or the folder it is put in, for PEFT a folder
 * with a folder for each model.
 * @throws LorikeetError `adapter-tensors` for what the format has no place for; `disk-full`, `read-only`
 */
export async function saveImageAdapter(
  adapter: Adapter,
  path: string,
  format: ImageAdapterFormat,
  { layout, isXl = baseOfAdapter(adapter) === "sdxl" }: ImageAdapterBase = {},
): Promise<void> {
  if (format === "peft") {
    for (const [model, own] of modelAdapters(adapter)) await saveAdapter(own, join(path, model));
    return;
  }
  const { tensors, metadata } =
    format === "diffusers"
      ? adapterToDiffusers(adapter)
      : adapterToKohya(adapter, { isXl, ...(layout && { layout }) });
  const file = extname(path) === ".safetensors" ? path : join(path, DIFFUSERS_FILE);
  await writeAtomically(file, serializeSafetensors(tensors, metadata));
}

/** Whether there is an image adapter at `path`; a folder with config.json or model_index.json is a model. */
export async function isImageAdapter(path: string): Promise<boolean> {
  if (await isFile(path)) return /\.(safetensors|bin|pt)$/.test(path);
  for (const file of ["config.json", "model_index.json"])
    if (await isFile(join(path, file))) return false;
  if ((await foldersIn(path)).length > 0) return true;
  if ((await fileIn(path).catch(() => undefined)) !== undefined) return true;
  const adapter = await loadAdapterFolder(path).catch(() => undefined);
  return adapter !== undefined && isImageNames(adapter.tensors.keys());
}

/** Names of modules that only models of Stable Diffusion have. */
function isImageNames(keys: Iterable<string>): boolean {
  for (const key of keys)
    if (/\b(unet|text_encoder|text_encoder_2)\.|\.(down|up)_blocks\.|\.mid_block\./.test(key))
      return true;
  return false;
}

async function loadFolders(path: string): Promise<Adapter> {
  const models = await foldersIn(path);
  if (models.length === 0) return adapterFromPeft(await loadAdapterFolder(path));
  const adapters = new Map<string, Adapter>();
  for (const model of models) adapters.set(model, await loadAdapterFolder(join(path, model)));
  return adapterFromModels(adapters);
}

async function foldersIn(path: string): Promise<string[]> {
  const found = await Promise.all(
    PIPELINE_MODELS.map((model) => isFile(join(path, model, "adapter_config.json"))),
  );
  return PIPELINE_MODELS.filter((_, i) => found[i]);
}

/** The LoRA file of diffusers or kohya in `folder`; undefined for PEFT's folders. */
async function fileIn(folder: string): Promise<string | undefined> {
  if (await isFile(join(folder, DIFFUSERS_FILE))) return join(folder, DIFFUSERS_FILE);
  const files = await readdir(folder);
  if (files.includes("adapter_config.json") || (await foldersIn(folder)).length > 0)
    return undefined;
  const loras = files.filter((file) => /\.safetensors$|^pytorch_lora_weights\.bin$/.test(file));
  if (loras.length === 1) return join(folder, loras[0]!);
  throw new LorikeetError(
    "file-not-found",
    loras.length === 0
      ? `Expected a LoRA file or adapter_config.json in ${folder}, found ${files.length === 0 ? "nothing" : files.slice(0, 5).join(", ")}`
      : `Expected one LoRA file in ${folder}, found ${loras.join(", ")}`,
    { hint: "Name the adapter's .safetensors file, or the folder that PEFT wrote." },
  );
}

async function readLoraFile(path: string): Promise<LoraFile> {
  if (!/\.(bin|pt)$/.test(path)) {
    const { tensors, metadata = {} } = await decodeSafetensors(await readFile(path), path);
    return { tensors, metadata };
  }
  const weights = await openTorch(path);
  const tensors = new Map<string, Tensor>();
  for (const name of weights.names) tensors.set(name, await weights.read(name));
  return { tensors, metadata: {} };
}
