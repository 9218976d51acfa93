import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Adapter } from "../adapter/adapter.ts";
import { isKohya } from "../adapter/formats/kohya.ts";
import { loadAdapterFolder } from "./adapter-files.ts";
import { loadAnyAdapter, loadStoredGgufAdapter, MLX_FILE } from "./adapter-formats.ts";
import { openWeights } from "./checkpoint.ts";
import { isFile } from "./files.ts";
import { isImageAdapter, loadImageAdapter } from "./image-adapter-files.ts";
import { ggufSummary } from "./stored-files.ts";

/** An adapter of any format, as it lies in `path`. */
export interface FoundAdapter {
  readonly adapter: Adapter;
  readonly format: "peft" | "mlx-lm" | "gguf" | "diffusers" | "kohya";
  readonly path: string;
}

/**
 * The adapter at `path`, whichever tool wrote it; undefined for what is a model, or nothing. Rows of GGUF adapters are
 * as they are stored.
 * @throws LorikeetError what the format's reader throws
 */
export async function findAdapter(path: string): Promise<FoundAdapter | undefined> {
  if (await isFile(path)) return inFile(path);
  if (!(await stat(path).catch(() => undefined))) return undefined;
  if (await isFile(join(path, MLX_FILE)))
    return { adapter: await loadAnyAdapter(path), format: "mlx-lm", path };
  if (await isImageAdapter(path)) {
    const format = await imageFormat(path);
    return { adapter: await loadImageAdapter(path), format, path };
  }
  const folder = await peftFolder(path);
  return folder === undefined ? undefined : { adapter: await loadAdapterFolder(folder), format: "peft", path: folder }; // prettier-ignore
}

/** Whether there is an adapter of a language model at `path`: of PEFT, mlx-lm or llama.cpp. */
export async function isAdapter(path: string): Promise<boolean> {
  if (path.endsWith(".gguf")) return (await isFile(path)) && (await ggufSummary(path)).isAdapter;
  const info = await stat(path).catch(() => undefined);
  if (!info?.isDirectory()) return false;
  return (await isFile(join(path, MLX_FILE))) || (await peftFolder(path)) !== undefined;
}

/** Files that say what their folder is, one of which a model or an adapter has. */
const MARKS = ["config.json", "adapter_config.json", "model_index.json"];
/** Files that are a part of such a folder and nothing alone. */
const PART = /\.json$|^(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)$/;

/** The folder of the model or adapter that the file `path` is a part of (its config.json, a shard); `path` for all else. */
export async function folderOfPart(path: string): Promise<string> {
  if (!PART.test(basename(path)) || !(await isFile(path))) return path;
  const folder = dirname(path);
  const marks = await Promise.all(MARKS.map((name) => isFile(join(folder, name))));
  return marks.includes(true) ? folder : path;
}

async function inFile(path: string): Promise<FoundAdapter | undefined> {
  if (path.endsWith(".gguf"))
    return (await ggufSummary(path)).isAdapter
      ? { adapter: await loadStoredGgufAdapter(path), format: "gguf", path }
      : undefined;
  if (basename(path).startsWith("adapter_model.") || basename(path) === MLX_FILE)
    return findAdapter(dirname(path));
  if (!/\.(safetensors|bin|pt)$/.test(path)) return undefined;
  const { names } = await openWeights(path);
  if (!names.some((name) => name.includes("lora"))) return undefined;
  return { adapter: await loadImageAdapter(path), format: isKohya(names) ? "kohya" : "diffusers", path }; // prettier-ignore
}

/** The folder of PEFT's adapter at `path`: itself, or its subfolder with one (PEFT names those after adapters). */
async function peftFolder(path: string): Promise<string | undefined> {
  if (await isFile(join(path, "adapter_config.json"))) return path;
  if (await isFile(join(path, "config.json"))) return undefined;
  const names = await readdir(path);
  const inside = await Promise.all(names.map((name) => isFile(join(path, name, "adapter_config.json")))); // prettier-ignore
  const adapters = names.filter((_, i) => inside[i]);
  if (adapters.length === 0) return undefined;
  return adapters.length === 1 ? join(path, adapters[0]!) : path; // several: loading says which
}

async function imageFormat(folder: string): Promise<"peft" | "diffusers" | "kohya"> {
  const files = await readdir(folder);
  const file = files.find((name) => /\.(safetensors|bin)$/.test(name) && !name.startsWith("adapter_model.")); // prettier-ignore
  if (file === undefined) return "peft";
  return isKohya((await openWeights(join(folder, file))).names) ? "kohya" : "diffusers";
}
