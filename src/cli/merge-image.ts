import type { Command } from "commander";
import { type ImagePipeline, isPipeline, loadPipeline } from "../api/image-pipeline.ts";
import { mergePipeline, unmergePipeline } from "../api/merge-pipeline.ts";
import type { UnmergeResult } from "../api/unmerge.ts";
import type { LoadOptions } from "../api/load-model.ts";
import { LorikeetError } from "../errors.ts";
import { type AdapterDownload, adapterPath } from "../host/adapter-formats.ts";
import { isHubId } from "../host/hub.ts";
import { isImageAdapter, loadImageAdapter } from "../host/image-adapter-files.ts";
import { formatBytes } from "../host/run-files/run-numbers.ts";
import type { DType } from "../tensor/dtype.ts";
import type { CliContext } from "./context.ts";
import { showDownload } from "./download.ts";
import { type AdapterReference, parseAdapter, readAdapters } from "./image-options.ts";

/** What merging into an image model needs of the options of `merge`. */
export interface MergeImageFlags {
  readonly model?: string;
  readonly adapter: string;
  readonly output: string;
  readonly to: string;
  readonly dtype?: string;
  readonly maxShardSize: number;
  readonly safe: boolean;
  readonly overwrite?: boolean;
  readonly json?: boolean;
}

/** Whether the base is an image model or, where none is named or it is on the hub, the adapter is of one. */
export async function isImageMerge(
  { model, adapter }: Pick<MergeImageFlags, "model" | "adapter">,
  options: AdapterDownload,
): Promise<boolean> {
  if (model !== undefined && (await isPipeline(model))) return true;
  if (model !== undefined && !isHubId(model)) return false;
  return isImageAdapter(await adapterPath(parseAdapter(adapter).path, options));
}

/** Merges an adapter, times the weight behind its path, into the UNet and text encoders of an image model. */
export async function mergeImage(
  command: Command,
  flags: MergeImageFlags,
  { out, err }: CliContext,
): Promise<void> {
  const { output, to, dtype, maxShardSize, safe, overwrite, json } = flags;
  if (to !== "safetensors" || dtype === "q8_0")
    command.error("error: image models are written as folders of safetensors in f32, f16 or bf16", { exitCode: 2 }); // prettier-ignore
  const pipeline = await adapted(flags, { onDownload: showDownload(err) });
  const result = await mergePipeline(pipeline, output, {
    safe,
    maxShardBytes: maxShardSize,
    ...(overwrite && { overwrite }),
    ...(dtype !== undefined && { dtype: dtype as DType }),
  });
  const { files, bytes, changed } = result;
  out.write(json ? `${JSON.stringify(result)}\n` : `${output}: ${changed.length} weights merged, ${files.length} files, ${formatBytes(bytes)}\n`); // prettier-ignore
}

/** Takes an adapter out of a merged image model again. */
export async function unmergeImage(
  flags: Pick<MergeImageFlags, "model" | "adapter" | "output" | "overwrite"> & {
    readonly base?: string;
  },
  options: LoadOptions,
): Promise<UnmergeResult> {
  const { output, base, overwrite } = flags;
  return unmergePipeline(await adapted(flags, options), output, {
    ...(base !== undefined && { base: (await loadPipeline(base, options)).checkpoint }),
    ...(overwrite && { overwrite }),
  });
}

async function adapted(
  { model, adapter }: Pick<MergeImageFlags, "model" | "adapter">,
  options: LoadOptions,
): Promise<ImagePipeline> {
  const reference = parseAdapter(adapter);
  const base = await loadPipeline(model ?? (await baseModelOf(reference, options)), options);
  return base.withAdapters(await readAdapters(base, [reference], options));
}

async function baseModelOf({ path }: AdapterReference, options: LoadOptions): Promise<string> {
  const { baseModel } = (await loadImageAdapter(await adapterPath(path, options))).config;
  if (baseModel !== undefined) return baseModel;
  throw new LorikeetError(
    "missing-base",
    `Expected the image model that ${path} belongs to; the adapter names none`,
    { hint: "Add --model." },
  );
}
