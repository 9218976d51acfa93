import { join } from "node:path";
import {
  type Adapter,
  decodeAdapter,
  decodeAdapterConfig,
  encodeAdapter,
} from "../adapter/adapter.ts";
import { LorikeetError } from "../errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { openTorch } from "./checkpoint-torch.ts";
import { isFile, readText, writeAtomically } from "./files.ts";
import { readFile } from "node:fs/promises";

/** Writes `adapter_config.json` and `adapter_model.safetensors` into `folder`, as PEFT's save_pretrained does. */
export async function saveAdapter(adapter: Adapter, folder: string): Promise<void> {
  const { config, weights } = encodeAdapter(adapter);
  await writeAtomically(join(folder, "adapter_model.safetensors"), weights);
  await writeAtomically(join(folder, "adapter_config.json"), config);
}

/**
 * The adapter that PEFT (or Lorikeet) saved in `folder`, as `adapter_model.safetensors` or `adapter_model.bin`.
 * @throws LorikeetError `file-not-found` when a file is absent; what `decodeAdapter` and `openTorch` throw
 */
export async function loadAdapterFolder(folder: string): Promise<Adapter> {
  const [config, weights, older] = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
  ].map((file) => join(folder, file)) as [string, string, string];
  const isTorch = !(await isFile(weights)) && (await isFile(older));
  for (const path of isTorch ? [config] : [config, weights])
    if (!(await isFile(path)))
      throw new LorikeetError(
        "file-not-found",
        `Expected an adapter folder with ${path}, found no such file`,
        {
          hint: "Give the folder that train or PEFT's save_pretrained wrote.",
        },
      );
  if (!isTorch) return decodeAdapter(await readText(config), await readFile(weights));
  const source = await openTorch(older);
  const tensors = new Map<string, Tensor>();
  for (const name of source.names) tensors.set(name, await source.read(name));
  return { ...decodeAdapterConfig(await readText(config)), tensors };
}
