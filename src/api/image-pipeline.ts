import { stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Adapter } from "../adapter/adapter.ts";
import { peftKey } from "../adapter/adapter.ts";
import { refuseNonFinite } from "../adapter/finite.ts";
import { attachImageAdapter } from "../adapter/image-adapter.ts";
import type { Engine } from "../backends/backend.ts";
import { idleLayers, isXl, pipelineLayers, pipelineRoots } from "../diffusion/pipeline-graphs.ts";
import { LorikeetError } from "../errors.ts";
import { unetLayout } from "../formats/stable-diffusion/unet-names.ts";
import { isFile } from "../host/files.ts";
import { fetchPipeline, isHubId } from "../host/hub.ts";
import type { ImageAdapterBase } from "../host/image-adapter-files.ts";
import { openPipeline, type PipelineCheckpoint } from "../host/open-pipeline.ts";
import type { Node } from "../ir/node.ts";
import { insertLora, type LoraCandidate, type LoraSite } from "../passes/lora.ts";
import { convert } from "../tensor/convert.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkWeights } from "./check-weights.ts";
import type { LoadOptions } from "./load-model.ts";
import { type DeviceOptions, openEngine } from "./open-engine.ts";

/** Image models that the package carries. */
export const EMBEDDED_IMAGE_MODELS: readonly string[] = ["picturebook-7m"];

/** An adapter and how much of it is used: 1 is as it was trained, 0 not at all. */
export interface WeightedAdapter {
  readonly adapter: Adapter;
  readonly weight?: number;
  /** What the settings of an image call it. */
  readonly name?: string;
}

/** A Stable Diffusion model, with or without adapters. The weights of the base are shared by all made from it. */
export interface ImagePipeline {
  readonly checkpoint: PipelineCheckpoint;
  readonly device: DeviceOptions;
  readonly adapters: readonly WeightedAdapter[];
  /** Layers that an adapter can be attached to, `unet.…` and `text_encoder.…`. */
  readonly layers: readonly LoraCandidate[];
  /** Layers that adapters may have tensors for although nothing reads what they compute. */
  readonly idleLayers: readonly LoraCandidate[];
  /** The same base with `adapters` in place of its own. @throws LorikeetError `adapter-mismatch`, `not-finite` */
  withAdapters(adapters: readonly WeightedAdapter[]): ImagePipeline;
  /** `roots` of a graph of this pipeline with the adapters in place. */
  adapt(roots: readonly Node[]): Node[];
  /** An engine that holds the adapters' tensors; the caller disposes it. */
  openEngine(): Promise<Engine>;
}

/**
 * Opens an image model: the embedded `picturebook-7m`, a folder in diffusers layout, a `.safetensors` file in the
 * original layout of Stable Diffusion 1, 2 or XL, or a hub id (`owner/name`), which is downloaded into the Hugging Face
 * cache first. Weights are not read until they are used.
 * @throws LorikeetError `file-not-found`, `pipeline-layout`, `missing-weight`, `weight-shape`, and what downloading throws
 */
export async function loadPipeline(
  reference: string,
  options: LoadOptions = {},
): Promise<ImagePipeline> {
  const { onDownload, ...device } = options;
  const path = EMBEDDED_IMAGE_MODELS.includes(reference) ? embedded(reference) : reference;
  if (await stat(path).catch(() => undefined))
    return createPipeline(await openPipeline(path), device);
  if (!isHubId(reference))
    throw new LorikeetError(
      "file-not-found",
      `Expected an image model's folder or file, a hub id or ${EMBEDDED_IMAGE_MODELS.join(", ")}; found nothing at ${reference}`,
      { hint: "Check the path." },
    );
  const folder = await fetchPipeline(reference, { ...(onDownload && { onProgress: onDownload }) });
  return createPipeline({ ...(await openPipeline(folder)), name: reference }, device);
}

/** Whether `reference` names an image model, told by names of files alone. */
export async function isPipeline(reference: string): Promise<boolean> {
  if (EMBEDDED_IMAGE_MODELS.includes(reference)) return true;
  if (await isFile(join(reference, "unet", "config.json"))) return true;
  return reference.endsWith(".safetensors") && isFile(reference);
}

/** The pipeline of an opened checkpoint. @throws LorikeetError `missing-weight`, `weight-shape` */
export function createPipeline(
  checkpoint: PipelineCheckpoint,
  device: DeviceOptions = {},
): ImagePipeline {
  checkWeights(checkpoint.weights, pipelineRoots(checkpoint.configs), checkpoint.name);
  const { configs } = checkpoint;
  const layers = { layers: pipelineLayers(configs), idleLayers: idleLayers(configs) };
  return makePipeline(checkpoint, device, layers, []);
}

interface Insertion {
  readonly sites: ReadonlyMap<string, LoraSite>;
  readonly values: ReadonlyMap<string, Tensor>;
  readonly nameOf: (module: string, part: string) => string;
}

function makePipeline(
  checkpoint: PipelineCheckpoint,
  device: DeviceOptions,
  known: Pick<ImagePipeline, "layers" | "idleLayers">,
  adapters: readonly WeightedAdapter[],
): ImagePipeline {
  for (const { adapter } of adapters) refuseNonFinite(adapter);
  // without those that change nothing the programs are the base's own
  const used = adapters.filter(({ weight = 1 }) => weight !== 0);
  const insertions = used.map(({ adapter, weight = 1 }, i): Insertion => {
    const candidates = [...known.layers, ...known.idleLayers];
    const { sites, values } = attachImageAdapter(adapter, candidates, weight);
    // tensors of several adapters of one layer must not share a name
    return { sites, values, nameOf: (module, part) => `${i}/${peftKey(module, part)}` };
  });
  return {
    checkpoint,
    device,
    adapters,
    ...known,
    withAdapters: (next) => makePipeline(checkpoint, device, known, next),
    adapt: (roots) =>
      insertions.reduce<Node[]>(
        (adapted, { sites, nameOf }) => insertLora(adapted, sites, { nameOf }),
        [...roots],
      ),
    async openEngine() {
      const engine = await openEngine(checkpoint.weights, device);
      for (const [i, { values }] of insertions.entries())
        for (const [key, value] of values) await engine.set(`${i}/${key}`, convert(value, "f32"));
      return engine;
    },
  };
}

/** How kohya's files name the layers of `pipeline`. */
export function pipelineNaming({ checkpoint }: ImagePipeline): ImageAdapterBase {
  const { configs } = checkpoint;
  if (!isXl(configs)) return { isXl: false };
  return { isXl: true, layout: unetLayout(configs.unet) };
}

function embedded(name: string): string {
  return fileURLToPath(new URL(`../../models/${name}`, import.meta.url));
}
