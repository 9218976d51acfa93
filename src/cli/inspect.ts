import type { Command } from "commander";
import { type FitBase, modelBase, pipelineBase } from "../api/adapter-fit.ts";
import { type ImagePipeline, isPipeline, loadPipeline } from "../api/image-pipeline.ts";
import { type AdapterInspection, inspectAdapter, inspectModel, inspectPipeline, type ModelInspection } from "../api/inspection.ts"; // prettier-ignore
import { loadModel, type LoadOptions } from "../api/load-model.ts";
import { LorikeetError } from "../errors.ts";
import { adapterPath } from "../host/adapter-formats.ts";
import { isHubId } from "../host/hub.ts";
import { findAdapter, folderOfPart, type FoundAdapter } from "../host/model-kinds.ts";
import { ggufSummary, storedBytes } from "../host/stored-files.ts";
import type { WeightSource } from "../backends/backend.ts";
import { formatShape } from "../tensor/shape.ts";
import type { CliContext } from "./context.ts";
import { showDownload } from "./download.ts";
import { adapterText, modelText } from "./inspection-text.ts";

const EXAMPLES = `
Examples:
  lorikeet inspect storyteller-6m
  lorikeet inspect out --model storyteller-6m           an adapter of PEFT or mlx-lm, and how it fits
  lorikeet inspect out.gguf                             an adapter or a model of llama.cpp
  lorikeet inspect style.safetensors                    an image adapter of kohya or diffusers
  lorikeet inspect model.gguf --weights
  lorikeet inspect out --json`;

interface Flags {
  readonly model?: string;
  readonly weights?: boolean;
  readonly json?: boolean;
}

/** `lorikeet inspect`: what is in a model or an adapter. */
export function register(command: Command, { out, err }: CliContext): void {
  command
    .argument("<what>", "model (hub id, folder, .gguf file, storyteller-6m) or adapter of any format")
    .option("-m, --model <ref>", "base to compare an adapter with")
    .option("--weights", "list every tensor")
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLES)
    .action(async (what: string, flags: Flags) => {
      const { inspection, tensors } = await inspected(what, flags.model, { onDownload: showDownload(err) });
      const listed = flags.weights ? tensors : undefined;
      if (flags.json) out.write(`${JSON.stringify({ ...inspection, tensors: listed }, null, 2)}\n`);
      else if (listed) out.write(tensorList(listed));
      else out.write(inspection.kind === "model" ? modelText(inspection) : adapterText(inspection));
    }); // prettier-ignore
}

interface Inspected {
  readonly inspection: ModelInspection | AdapterInspection;
  readonly tensors: readonly TensorType[];
}

interface TensorType {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
}

async function inspected(
  given: string,
  model: string | undefined,
  options: LoadOptions,
): Promise<Inspected> {
  const what = await folderOfPart(given);
  const found = await findAdapter(what);
  if (found) return ofAdapter(found, model, options);
  if (await isPipeline(what)) return ofPipeline(await loadPipeline(what));
  try {
    return await ofModel(what, options);
  } catch (cause) {
    // a repository of an adapter alone lacks a model's files
    const isNoModel = cause instanceof LorikeetError && ["missing-weights", "file-not-found"].includes(cause.code); // prettier-ignore
    const fetched = isNoModel && isHubId(what) ? await findAdapter(await adapterPath(what, options)) : undefined; // prettier-ignore
    if (!fetched) throw cause;
    return ofAdapter(fetched, model, options);
  }
}

async function ofAdapter({ adapter, format, path }: FoundAdapter, model: string | undefined, options: LoadOptions): Promise<Inspected> {
  const inspection = inspectAdapter(adapter, model === undefined ? undefined : await baseOf(model, options));
  const tensors = [...adapter.tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  return { inspection: { ...inspection, format, fileBytes: await storedBytes(path) }, tensors };
} // prettier-ignore

async function baseOf(reference: string, options: LoadOptions): Promise<FitBase> {
  if (await isPipeline(reference)) return pipelineBase(await loadPipeline(reference));
  const model = await loadModel(reference, options);
  await model.dispose();
  return modelBase(model);
}

async function ofPipeline(pipeline: ImagePipeline): Promise<Inspected> {
  const { weights } = pipeline.checkpoint;
  return { inspection: inspectPipeline(pipeline), tensors: await Promise.resolve(listOf(weights)) };
}

async function ofModel(reference: string, options: LoadOptions): Promise<Inspected> {
  const model = await loadModel(reference, options);
  await model.dispose();
  const { path, weights } = model.checkpoint;
  const types = path.endsWith(".gguf") ? { storedTypes: (await ggufSummary(path)).types } : {};
  const inspection = { ...inspectModel(model), fileBytes: await storedBytes(path), ...types };
  return { inspection, tensors: listOf(weights) };
}

function listOf(weights: WeightSource): TensorType[] {
  return weights.names.map((name) => {
    const { dtype, shape } = weights.get(name);
    return { name, dtype, shape };
  });
}

function tensorList(tensors: readonly TensorType[]): string {
  return tensors.map(({ name, dtype, shape }) => `${name}  ${dtype} ${formatShape(shape)}\n`).join(""); // prettier-ignore
}
