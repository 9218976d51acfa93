import type { Weight, WeightSource } from "../backends/backend.ts";
import { faultsError } from "../formats/faults.ts";
import { parseShardIndex } from "../formats/safetensors-index.ts";
import { readTorch, readTorchTensor, type TorchTensor } from "../formats/torch/read.ts";
import { missingWeight, openShards } from "./checkpoint-weights.ts";
import { type FileSource, fileSource, readText } from "./files.ts";

interface Located {
  readonly source: FileSource;
  readonly stored: TorchTensor;
}

/**
 * Weights of a PyTorch state dict (`.bin`, `.pt`); nothing in it is executed.
 * @throws LorikeetError `unsafe-pickle`, `corrupt-pickle`, `corrupt-zip`, `truncated-file`, `unsupported-torch-file`
 */
export async function openTorch(path: string): Promise<WeightSource> {
  const source = await fileSource(path);
  const tensors = await readTorch(source);
  return weightsOf(new Map(tensors.map((stored) => [stored.name, { source, stored }])), path);
}

/**
 * Weights of a sharded PyTorch checkpoint, from its `pytorch_model.bin.index.json`.
 * @throws LorikeetError `missing-shard`, `corrupt-index`, and what `openTorch` throws for a shard
 */
export async function openShardedTorch(indexPath: string): Promise<WeightSource> {
  const map = parseShardIndex(await readText(indexPath), indexPath);
  const located = new Map<string, Located>();
  for (const [file, source] of await openShards(indexPath, map))
    for (const stored of await readTorch(source))
      if (map.get(stored.name) === file) located.set(stored.name, { source, stored });
  const faults = [...map].filter(([name]) => !located.has(name));
  if (faults.length > 0)
    throw faultsError(
      "corrupt-index",
      `the shards to hold what ${indexPath} says`,
      faults.map(([name, file]) => `tensor "${name}" is not in ${file}`),
      "Fetch the checkpoint again: its index and its shards do not belong together.",
    );
  return weightsOf(located, indexPath);
}

function weightsOf(located: ReadonlyMap<string, Located>, path: string): WeightSource {
  const find = (name: string): Located => located.get(name) ?? missingWeight(name, located, path);
  return {
    names: [...located.keys()],
    get: (name) => describe(find(name)),
    read(name) {
      const { source, stored } = find(name);
      return readTorchTensor(source, stored);
    },
  };
}

function describe({ source, stored }: Located): Weight {
  const { dtype, shape, offset, length, isContiguous } = stored;
  if (!isContiguous) return { dtype, shape, bytes: { kind: "computed" } };
  return { dtype, shape, bytes: { kind: "file", path: source.path, offset, length } };
}
