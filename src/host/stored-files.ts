import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { readGguf } from "../formats/gguf/read.ts";
import { fileSource } from "./files.ts";

/** Files that hold weights, of models and adapters. */
const WEIGHTS = /\.(safetensors|bin|pt|pth|gguf|onnx|onnx_data(_\d+)?)$/;

/** Bytes of the file `path`, or of the files of weights in the folder `path`; 0 when there is nothing. */
export async function storedBytes(path: string): Promise<number> {
  const info = await stat(path).catch(() => undefined);
  if (!info) return 0;
  if (!info.isDirectory()) return info.size;
  const names = (await readdir(path)).filter((name) => WEIGHTS.test(name));
  const sizes = await Promise.all(names.map((name) => stat(join(path, name))));
  return sizes.reduce((sum, { size }) => sum + size, 0);
}

/** What a GGUF file says of itself: its `general.type`, and the types of its tensors from the most frequent on. */
export async function ggufSummary(path: string): Promise<{ isAdapter: boolean; types: string[] }> {
  const { metadata, tensors } = await readGguf(await fileSource(path));
  const counts = new Map<string, number>();
  for (const { type } of tensors) counts.set(type, (counts.get(type) ?? 0) + 1);
  return {
    isAdapter: metadata.get("general.type")?.value === "adapter",
    types: [...counts].sort(([, a], [, b]) => b - a).map(([type]) => type),
  };
}
