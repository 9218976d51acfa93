import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { WeightSource } from "../backends/backend.ts";
import { LorikeetError } from "../errors.ts";
import { openGguf } from "./checkpoint-gguf.ts";
import { openShardedTorch, openTorch } from "./checkpoint-torch.ts";
import { openSafetensors, openShardedSafetensors } from "./checkpoint-weights.ts";
import { asFileError } from "./file-errors.ts";
import { isFile } from "./files.ts";

/** Files that hold a folder's weights, the first that is there counts; and how each is opened. */
const IN_FOLDER: readonly (readonly [string, (path: string) => Promise<WeightSource>])[] = [
  ["model.safetensors", openSafetensors],
  ["model.safetensors.index.json", openShardedSafetensors],
  ["pytorch_model.bin", openTorch],
  ["pytorch_model.bin.index.json", openShardedTorch],
];

/**
 * The weights of a checkpoint: a Hugging Face folder, or a `.safetensors`, `.index.json`, `.bin`, `.pt`, `.pth` or
 * `.gguf` file. Only headers are read at once.
 * @throws LorikeetError `file-not-found`; `missing-weights` for a folder without any; `unknown-format`; and what
 * the format's own reader throws
 */
export async function openWeights(path: string): Promise<WeightSource> {
  const info = await stat(path).catch((cause: unknown) => {
    throw asFileError(cause, path, "readable");
  });
  if (info.isDirectory()) return openFolder(path);
  if (path.endsWith(".bin.index.json")) return openShardedTorch(path);
  if (path.endsWith(".index.json")) return openShardedSafetensors(path);
  if (path.endsWith(".safetensors")) return openSafetensors(path);
  if (path.endsWith(".gguf")) return (await openGguf(path)).weights;
  if (/\.(bin|pt|pth)$/.test(path)) return openTorch(path);
  throw new LorikeetError(
    "unknown-format",
    `Expected ${path} to be a .safetensors, .gguf, .bin, .pt, .pth or .index.json file`,
    { hint: "Name such a file, or a folder that holds model.safetensors." },
  );
}

async function openFolder(folder: string): Promise<WeightSource> {
  for (const [file, open] of IN_FOLDER) {
    const path = join(folder, file);
    if (await isFile(path)) return open(path);
  }
  throw new LorikeetError(
    "missing-weights",
    `Expected ${folder} to hold one of ${IN_FOLDER.map(([file]) => file).join(", ")}, it holds none`,
    { hint: "Download the weights too; a folder with config.json alone is not enough." },
  );
}
