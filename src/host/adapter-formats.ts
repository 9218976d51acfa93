import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Adapter } from "../adapter/adapter.ts";
import {
  adapterToGguf,
  type GgufAdapterBase,
  refuseTiedEmbedding,
} from "../adapter/formats/gguf.ts";
import { adapterFromMlx, adapterToMlx } from "../adapter/formats/mlx.ts";
import { encodeGguf } from "../formats/gguf/write.ts";
import { decodeSafetensors } from "../formats/safetensors.ts";
import { serializeSafetensors } from "../formats/safetensors-write.ts";
import { loadAdapterFolder } from "./adapter-files.ts";
import { isFile, writeAtomically } from "./files.ts";
import { readJson } from "./open-checkpoint.ts";

/** File that mlx-lm keeps an adapter's tensors in. */
const MLX_FILE = "adapters.safetensors";

/** The adapter in `folder`, as PEFT or mlx-lm saved it. @throws LorikeetError as `loadAdapterFolder` */
export async function loadAnyAdapter(folder: string): Promise<Adapter> {
  const file = join(folder, MLX_FILE);
  if (!(await isFile(file))) return loadAdapterFolder(folder);
  const config = (await readJson(join(folder, "adapter_config.json"))) ?? {};
  const { tensors } = await decodeSafetensors(await readFile(file), file);
  return adapterFromMlx({ config, tensors });
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
