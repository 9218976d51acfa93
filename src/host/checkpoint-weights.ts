import { dirname, join } from "node:path";
import type { Weight, WeightSource } from "../backends/backend.ts";
import { LorikeetError, nearest } from "../errors.ts";
import { faultsError } from "../formats/faults.ts";
import { readSafetensorsHeader, type StoredTensor } from "../formats/safetensors.ts";
import { parseShardIndex } from "../formats/safetensors-index.ts";
import { tensorFromBytes } from "../formats/tensor-bytes.ts";
import { type FileSource, fileSource, isFile, readText } from "./files.ts";

/** A stored tensor and the file that holds it. */
interface Located {
  readonly source: FileSource;
  readonly stored: StoredTensor;
}

/**
 * Weights of one safetensors file; only its header is read at once. Each weight is a file range that may be mapped.
 * @throws LorikeetError `file-not-found`, `truncated-file`, `corrupt-safetensors`, `unsupported-dtype`
 */
export async function openSafetensors(path: string): Promise<WeightSource> {
  const source = await fileSource(path);
  const { tensors } = await readSafetensorsHeader(source);
  return weightsOf(new Map(tensors.map((stored) => [stored.name, { source, stored }])), path);
}

/**
 * Weights of a sharded checkpoint, from its `model.safetensors.index.json`.
 * @throws LorikeetError `missing-shard` (all that are missing), `corrupt-index` (a tensor is not in its shard), and
 * what `openSafetensors` throws for a shard
 */
export async function openShardedSafetensors(indexPath: string): Promise<WeightSource> {
  const map = parseShardIndex(await readText(indexPath), indexPath);
  const shards = await openShards(indexPath, map);
  const located = new Map<string, Located>();
  const faults: string[] = [];
  for (const [file, source] of shards) {
    const { tensors } = await readSafetensorsHeader(source);
    for (const stored of tensors)
      if (map.get(stored.name) === file) located.set(stored.name, { source, stored });
  }
  for (const [name, file] of map)
    if (!located.has(name)) faults.push(`tensor "${name}" is not in ${file}`);
  if (faults.length > 0)
    throw faultsError(
      "corrupt-index",
      `the shards to hold what ${indexPath} says`,
      faults,
      "Fetch the checkpoint again: its index and its shards do not belong together.",
    );
  return weightsOf(located, indexPath);
}

/** The files that `map` names, beside its index. @throws LorikeetError `missing-shard` */
export async function openShards(
  indexPath: string,
  map: ReadonlyMap<string, string>,
): Promise<Map<string, FileSource>> {
  const files = [...new Set(map.values())];
  const paths = files.map((file) => join(dirname(indexPath), file));
  const present = await Promise.all(paths.map((path) => isFile(path)));
  const missing = paths.filter((_, i) => !present[i]);
  if (missing.length > 0)
    throw new LorikeetError(
      "missing-shard",
      `Expected ${files.length} shards of ${indexPath}, ${missing.length} are missing: ${missing.join(", ")}`,
      { hint: "Download these files into the same folder." },
    );
  const sources = await Promise.all(paths.map((path) => fileSource(path)));
  return new Map(files.map((file, i) => [file, sources[i]!]));
}

function weightsOf(located: ReadonlyMap<string, Located>, path: string): WeightSource {
  const find = (name: string): Located => located.get(name) ?? missingWeight(name, located, path);
  return {
    names: [...located.keys()],
    get(name): Weight {
      const { source, stored } = find(name);
      const { dtype, shape, offset, length } = stored;
      return { dtype, shape, bytes: { kind: "file", path: source.path, offset, length } };
    },
    async read(name) {
      const { source, stored } = find(name);
      const bytes = await source.read(stored.offset, stored.length);
      return tensorFromBytes(stored.dtype, stored.shape, bytes);
    },
  };
}

/** Throws for a weight that a checkpoint does not have. @throws LorikeetError `missing-weight` */
export function missingWeight(
  name: string,
  present: ReadonlyMap<string, unknown>,
  path: string,
): never {
  const close = nearest(name, present.keys());
  throw new LorikeetError("missing-weight", `Expected ${path} to hold "${name}", it does not`, {
    hint: close.length > 0 ? `Did you mean ${close.join(", ")}?` : "Is this the right checkpoint?",
  });
}
