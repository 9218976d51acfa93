import type { Command } from "commander";
import { type ImagePipeline, isPipeline, loadPipeline } from "../api/image-pipeline.ts";
import { mergePipeline, unmergePipeline } from "../api/merge-pipeline.ts";
import type { UnmergeResult } from "../api/unmerge.ts";
import { LorikeetError } from "../errors.ts";
import { isImageAdapter, loadImageAdapter } from "../host/image-adapter-files.ts";
import { formatBytes } from "../host/run-files/run-numbers.ts";
import type { DType } from "../tensor/dtype.ts";
import type { CliContext } from "./context.ts";
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

/** Whether the base, or the adapter where no base is named, is of an image model. */
export async function isImageMerge({
  model,
  adapter,
}: Pick<MergeImageFlags, "model" | "adapter">): Promise<boolean> {
  return model === undefined ? isImageAdapter(parseAdapter(adapter).path) : isPipeline(model);
}

/** Merges an adapter, times the weight behind its path, into the UNet and text encoders of an image model. */
export async function mergeImage(
  command: Command,
  flags: MergeImageFlags,
  { out }: CliContext,
): Promise<void> {
  const { output, to, dtype, maxShardSize, safe, overwrite, json } = flags;
  if (to !== "safetensors" || dtype === "q8_0")
    command.error("error: image models are written as folders of safetensors in f32, f16 or bf16", { exitCode: 2 }); // prettier-ignore
  const result = await mergePipeline(await adapted(flags), output, {
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
): Promise<UnmergeResult> {
  const { output, base, overwrite } = flags;
  return unmergePipeline(await adapted(flags), output, {
    ...(base !== undefined && { base: (await loadPipeline(base)).checkpoint }),
    ...(overwrite && { overwrite }),
  });
}

async function adapted({
  model,
  adapter,
}: Pick<MergeImageFlags, "model" | "adapter">): Promise<ImagePipeline> {
  const reference = parseAdapter(adapter);
  const base = await loadPipeline(model ?? (await baseModelOf(reference)));
  return base.withAdapters(await readAdapters(base, [reference]));
}

async function baseModelOf({ path }: AdapterReference): Promise<string> {
  const { baseModel } = (await loadImageAdapter(path)).config;
  if (baseModel !== undefined) return baseModel;
  throw new LorikeetError(
    "missing-base",
    `Expected the image model that ${path} belongs to; the adapter names none`,
    { hint: "Add --model." },
  );
}
