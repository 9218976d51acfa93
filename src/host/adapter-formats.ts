import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Adapter } from "../adapter/adapter.ts";
import {
  adapterToGguf,
  type GgufAdapter,
  type GgufAdapterBase,
  refuseTiedEmbedding,
} from "../adapter/formats/gguf.ts";
import { adapterFromGguf } from "../adapter/formats/gguf-read.ts";
import { adapterFromMlx, adapterToMlx } from "../adapter/formats/mlx.ts";
import { LorikeetError } from "../errors.ts";
import { dequantize } from "../formats/gguf/dequantize.ts";
import { getString } from "../formats/gguf/metadata.ts";
import { readGguf } from "../formats/gguf/read.ts";
import { encodeGguf } from "../formats/gguf/write.ts";
import { decodeSafetensors } from "../formats/safetensors.ts";
import { serializeSafetensors } from "../formats/safetensors-write.ts";
import { sizeOf } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { loadAdapterFolder } from "./adapter-files.ts";
import { fileSource, isFile, writeAtomically } from "./files.ts";
import { type DownloadProgress, fetchAdapter, isHubId } from "./hub.ts";
import { readJson } from "./open-checkpoint.ts";

/** File that mlx-lm keeps an adapter's tensors in. */
export const MLX_FILE = "adapters.safetensors";

/** Who is told while an adapter is downloaded. */
export interface AdapterDownload {
  readonly onDownload?: (progress: DownloadProgress) => void;
}

/**
 * The adapter that `reference` names: a folder of PEFT or mlx-lm, a GGUF file of llama.cpp, or a hub id (`owner/name`),
 * which is fetched into the Hugging Face cache first.
 * @param config the base's config.json, which GGUF files of Llama's layout are read with
 * @throws LorikeetError as `loadAdapterFolder` and `fetchAdapter`; `missing-base` for such a GGUF file without `config`;
 * what `adapterFromGguf` throws
 */
export async function loadAnyAdapter(
  reference: string,
  config?: GgufAdapterBase["config"],
  options: AdapterDownload = {},
): Promise<Adapter> {
  const path = await adapterPath(reference, options);
  if (path.endsWith(".gguf") && (await isFile(path))) return loadGguf(path, config);
  const file = join(path, MLX_FILE);
  if (!(await isFile(file))) return loadAdapterFolder(path);
  const mlx = (await readJson(join(path, "adapter_config.json"))) ?? {};
  const { tensors } = await decodeSafetensors(await readFile(file), file);
  return adapterFromMlx({ config: mlx, tensors });
}

/** Where the adapter `reference` lies: the path itself, or for a hub id its folder in the cache. @throws as `fetchAdapter` */
export async function adapterPath(
  reference: string,
  { onDownload }: AdapterDownload = {},
): Promise<string> {
  const isThere = await stat(reference).then(() => true).catch(() => false); // prettier-ignore
  if (isThere || !isHubId(reference)) return reference;
  return fetchAdapter(reference, { ...(onDownload && { onProgress: onDownload }) });
}

/** An adapter in a GGUF file whose rows are as they are stored: for looking at. @throws LorikeetError as `adapterFromGguf` */
export async function loadStoredGgufAdapter(path: string): Promise<Adapter> {
  return adapterFromGguf(await readGgufFile(path), undefined);
}

async function loadGguf(path: string, config: GgufAdapterBase["config"] | undefined): Promise<Adapter> {
  const stored = await readGgufFile(path);
  if (config === undefined && getString(stored.metadata, "general.architecture") === "llama")
    throw new LorikeetError(
      "missing-base",
      `Expected the base model of ${path}, whose heads tell how its rows are ordered`,
      { hint: `Convert it first: lorikeet convert ${path} --to peft -o ADAPTER --model BASE.` },
    );
  return adapterFromGguf(stored, config);
} // prettier-ignore

async function readGgufFile(path: string): Promise<GgufAdapter> {
  const source = await fileSource(path);
  const { metadata, tensors: stored } = await readGguf(source);
  const tensors = new Map<string, Tensor>();
  for (const { name, type, shape, offset, length } of stored) {
    const values = dequantize(type, await source.read(offset, length), sizeOf(shape));
    tensors.set(name, tensor("f32", shape, values));
  }
  return { metadata, tensors };
}

/** Writes `adapter` as a GGUF file for llama.cpp. @throws LorikeetError `unsupported-gguf` */
export async function saveGgufAdapter(
  adapter: Adapter,
  base: GgufAdapterBase,
  file: string,
): Promise<void> {
  refuseTiedEmbedding(adapter, base);
  const { metadata, tensors } = adapterToGguf(adapter, base);
  const specs = [...tensors].map(([name, { shape }]) => ({ name, shape, type: "F32" as const }));
  await writeAtomically(
    file,
    encodeGguf(metadata, specs, (name) => tensors.get(name)!),
  );
}

/** Writes `adapter` into `folder` as mlx-lm reads it. @throws LorikeetError `unsupported-mlx` */
export async function saveMlxAdapter(
  adapter: Adapter,
  layerCount: number,
  folder: string,
): Promise<void> {
  const { config, tensors } = adapterToMlx(adapter, layerCount);
  await writeAtomically(join(folder, MLX_FILE), serializeSafetensors(tensors));
  await writeAtomically(join(folder, "adapter_config.json"), `${JSON.stringify(config, undefined, 4)}\n`); // prettier-ignore
}
