import { basename, dirname, resolve } from "node:path";
import { DIFFUSERS_FILE } from "../adapter/formats/diffusers.ts";
import { type ImagePipeline, pipelineNaming, type WeightedAdapter } from "../api/image-pipeline.ts";
import { type AdapterDownload, adapterPath } from "../host/adapter-formats.ts";
import { loadImageAdapter } from "../host/image-adapter-files.ts";

/** An adapter as the command line names it: `lora.safetensors:0.8`. */
export interface AdapterReference {
  readonly path: string;
  readonly weight: number;
}

/** Reads `PATH` or `PATH:WEIGHT`; only a number after the last colon is a weight. */
export function parseAdapter(text: string): AdapterReference {
  const [, path, weight] = /^(.+):(-?(?:\d+\.?\d*|\.\d+))$/.exec(text) ?? [];
  return path === undefined ? { path: text, weight: 1 } : { path, weight: Number(weight) };
}

/** Adds the adapter in `text` to those before: an option that is given several times. */
export function collectAdapters(
  text: string,
  before: readonly AdapterReference[] = [],
): AdapterReference[] {
  return [...before, parseAdapter(text)];
}

/** The adapters that `references` name, for `pipeline`. */
export async function readAdapters(
  pipeline: ImagePipeline,
  references: readonly AdapterReference[],
  options: AdapterDownload,
): Promise<WeightedAdapter[]> {
  const naming = pipelineNaming(pipeline);
  return Promise.all(
    references.map(async ({ path, weight }) => ({
      adapter: await loadImageAdapter(await adapterPath(path, options), naming),
      weight,
      name: adapterName(path),
    })),
  );
}

/** The file's name, or the folder's where every file has the same. */
function adapterName(path: string): string {
  const file = basename(resolve(path));
  if (file === DIFFUSERS_FILE) return basename(dirname(resolve(path)));
  return file.replace(/\.(safetensors|bin|pt)$/, "");
}
