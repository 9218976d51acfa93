import { stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { LorikeetError } from "../errors.ts";
import { isFile } from "../host/files.ts";
import { type DownloadProgress, fetchModel, isHubId } from "../host/hub.ts";
import { folderOfPart } from "../host/model-kinds.ts";
import { type Checkpoint, openFolder, openGgufModel } from "../host/open-checkpoint.ts";
import { createModel, type Model } from "./model.ts";
import type { DeviceOptions } from "./open-engine.ts";

/** Where a model runs, and who is told while it is downloaded. */
export interface LoadOptions extends DeviceOptions {
  readonly onDownload?: (progress: DownloadProgress) => void;
}

/** Models that the package carries. */
export const EMBEDDED_MODELS: readonly string[] = ["storyteller-6m"];

/**
 * Opens a model: the embedded `storyteller-6m`, a folder in Hugging Face layout, a `.gguf` file, or a hub id
 * (`owner/name`), which is downloaded into the Hugging Face cache first. Weights are not read until they are used.
 * @throws LorikeetError `file-not-found`, `unsupported-architecture`, and what opening that kind throws
 */
export async function loadModel(reference: string, options: LoadOptions = {}): Promise<Model> {
  const { onDownload, ...device } = options;
  return createModel(await openCheckpoint(reference, onDownload), device);
}

/** The checkpoint that `reference` names, as for `loadModel`. */
async function openCheckpoint(
  reference: string,
  onProgress: LoadOptions["onDownload"],
): Promise<Checkpoint> {
  if (EMBEDDED_MODELS.includes(reference)) return openFolder(embeddedFolder(reference));
  const info = await stat(reference).catch(() => undefined);
  if (info?.isDirectory()) return openFolder(reference);
  if (info?.isFile() && reference.endsWith(".gguf")) return openGgufModel(reference);
  if (!info && isHubId(reference))
    return openFolder(await fetchModel(reference, { ...(onProgress && { onProgress }) }));
  throw await noModelAt(reference, `a model folder, a .gguf file, a hub id or ${EMBEDDED_MODELS.join(", ")}`); // prettier-ignore
}

/** The error for a `reference` that is no model: nothing is there, or a file of another kind. */
async function noModelAt(reference: string, expected: string): Promise<LorikeetError> {
  const isThere = await isFile(reference);
  const got = isThere ? `got the file ${reference}` : `found nothing at ${reference}`;
  const folder = await folderOfPart(reference);
  return new LorikeetError("file-not-found", `Expected ${expected}; ${got}`, {
    hint: !isThere
      ? "Check the path."
      : folder === reference
        ? "A model is a folder with config.json and weights, not one of its files."
        : `Give the folder that it belongs to: ${folder}`,
  });
}

function embeddedFolder(name: string): string {
  return fileURLToPath(new URL(`../../models/${name}`, import.meta.url));
}
