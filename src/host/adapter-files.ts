import { readdir } from "node:fs/promises";
import { join } from "node:path";
import {
  type Adapter,
  decodeAdapterConfig,
  encodeAdapter,
  PEFT_PREFIX,
} from "../adapter/adapter.ts";
import type { WeightSource } from "../backends/backend.ts";
import { LorikeetError } from "../errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { openShardedTorch, openTorch } from "./checkpoint-torch.ts";
import { openSafetensors, openShardedSafetensors } from "./checkpoint-weights.ts";
import { isFile, readText, writeAtomically } from "./files.ts";

/** Writes `adapter_config.json` and `adapter_model.safetensors` into `folder`, as PEFT's save_pretrained does. */
export async function saveAdapter(adapter: Adapter, folder: string): Promise<void> {
  const { config, weights } = encodeAdapter(adapter);
  await writeAtomically(join(folder, "adapter_model.safetensors"), weights);
  await writeAtomically(join(folder, "adapter_config.json"), config);
}

/** Files that hold an adapter's tensors, the first that is there counts; and how each is opened. */
const WEIGHT_FILES: readonly (readonly [string, (path: string) => Promise<WeightSource>])[] = [
  ["adapter_model.safetensors", openSafetensors],
  ["adapter_model.safetensors.index.json", openShardedSafetensors],
  ["adapter_model.bin", openTorch],
  ["adapter_model.bin.index.json", openShardedTorch],
];

/**
 * The adapter that PEFT (or Lorikeet) saved in `folder`, or in its one subfolder (PEFT names those after adapters):
 * `adapter_model.safetensors` or `.bin`, in one file or several. Keys without PEFT's prefix get it.
 * @throws LorikeetError `file-not-found` when a file is absent, or several adapters are there; what `parsePeftConfig`
 * and the file's format throw
 */
export async function loadAdapterFolder(folder: string): Promise<Adapter> {
  const found = await adapterFolder(folder);
  const { config, source } = decodeAdapterConfig(
    await readText(join(found, "adapter_config.json")),
  );
  const weights = await openAdapterWeights(found);
  const hasPrefix = weights.names.some((name) => name.startsWith(PEFT_PREFIX));
  const tensors = new Map<string, Tensor>();
  for (const name of weights.names)
    tensors.set(hasPrefix ? name : PEFT_PREFIX + name, await weights.read(name));
  return { config, source, tensors };
}

async function openAdapterWeights(folder: string): Promise<WeightSource> {
  for (const [file, open] of WEIGHT_FILES) {
    const path = join(folder, file);
    if (await isFile(path)) return open(path);
  }
  throw noAdapter(join(folder, WEIGHT_FILES[0]![0]));
}

async function adapterFolder(folder: string): Promise<string> {
  const config = join(folder, "adapter_config.json");
  if (await isFile(config)) return folder;
  const names = await readdir(folder).catch((): string[] => []);
  const inside = await Promise.all(names.map((name) => isFile(join(folder, name, "adapter_config.json")))); // prettier-ignore
  const adapters = names.filter((_, i) => inside[i]);
  if (adapters.length === 1) return join(folder, adapters[0]!);
  if (adapters.length === 0) throw noAdapter(config);
  throw new LorikeetError("file-not-found", `Expected one adapter in ${folder}, found ${adapters.join(", ")}`, { hint: `Name one of them, such as ${join(folder, adapters[0]!)}.` }); // prettier-ignore
}

function noAdapter(path: string): LorikeetError {
  return new LorikeetError("file-not-found", `Expected an adapter folder with ${path}, found no such file`, { hint: "Give the folder that train or PEFT's save_pretrained wrote." }); // prettier-ignore
}
