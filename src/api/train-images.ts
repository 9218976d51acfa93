import { type Adapter, peftKey } from "../adapter/adapter.ts";
import type { Engine } from "../backends/backend.ts";
import type { AdapterBase } from "../adapter/adapter-base.ts";
import { completeConfig } from "../adapter/complete-config.ts";
import { changesBase } from "../adapter/init/initial-part.ts";
import { initialAdapter } from "../adapter/initial-adapter.ts";
import type { LoraConfig } from "../adapter/lora-config.ts";
import { resolveTargets, targetWarnings } from "../adapter/targets.ts";
import type { DataWarning } from "../data/data-warnings.ts";
import type { DenoiseShape } from "../diffusion/pipeline-graphs.ts";
import { LorikeetError } from "../errors.ts";
import { freeMemory } from "../host/free-memory.ts";
import { loadImageAdapter, saveImageAdapter } from "../host/image-adapter-files.ts";
import { thumbnailUrl } from "../host/image-pixels.ts";
import type { AdapterStorage } from "../host/run-store.ts";
import type { TrainConfig } from "../host/train-config.ts";
import { vaeFactor } from "../models/autoencoder-kl.ts";
import { insertLora, type LoraSite } from "../passes/lora.ts";
import {
  denoiseShape,
  IMAGE_TARGETS,
  imageEvaluationGraph,
  imageParameters,
  type ImagePlan,
  imageTrainingGraph,
  trainsText,
} from "../train/image-plan.ts";
import { heldBy } from "./choose-optimizer.ts";
import type { ImagePipeline } from "./image-pipeline.ts";
import { openImageSession } from "./image-session.ts";
import { captionedFiles, openImageData, priorFiles, resolutionOf } from "./image-training-data.ts";
import { checkMemory, estimateImageMemory } from "./memory-estimate.ts";
import { reportOf } from "./record.ts";
import type { RunStore } from "./run-store.ts";
import { samplePainter } from "./sample-images.ts";
import { trainRun, type TrainRun } from "./train.ts";
import { type ResolvedRun, resolveTrainOptions, type TrainOptions } from "./train-options.ts";
import {
  isCheckpointed,
  openTaskEngine,
  stepGraphs,
  windowConfig,
  type TrainKind,
  type TrainTask,
} from "./train-task.ts";

/** Images in the report that were trained on. */
const SHOWN = 10;
/** What trains of a text encoder, as in diffusers. */
const TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"];

/**
 * Trains an adapter for a Stable Diffusion `pipeline` on folders of captioned images; the weights of the base never
 * change. Sample images and generated class images need an `outputDir`.
 * @throws LorikeetError (when iterated) `config-invalid`, `lora-targets`, `output-exists`, `no-images`,
 * `image-captions`, `image-size`, `non-finite-latents`, `non-finite-loss`
 */
export function trainImages(
  pipeline: ImagePipeline,
  options: Omit<TrainOptions, "task">,
): TrainRun<ImagePipeline> {
  return startImageRun(pipeline, resolveTrainOptions({ ...options, task: "text-to-image" }));
}

/** `trainImages` with settings that are resolved already. */
export function startImageRun(pipeline: ImagePipeline, run: ResolvedRun): TrainRun<ImagePipeline> {
  const own = withScheduler(pipeline, run.config);
  const kind: TrainKind = {
    storage,
    open: (known, store) => openImageTask(own, known, store),
  };
  return trainRun(kind, run, (adapter) => pipeline.withAdapters([{ adapter }]));
}

/** The pipeline with the settings' own way of making noise. */
function withScheduler(pipeline: ImagePipeline, config: TrainConfig): ImagePipeline {
  const { checkpoint } = pipeline;
  const { predictionType, zeroTerminalSnr } = checkpoint.scheduler;
  const scheduler = {
    ...checkpoint.scheduler,
    predictionType: config.prediction_type ?? predictionType,
    zeroTerminalSnr: config.rescale_betas_zero_snr ?? zeroTerminalSnr,
  };
  if (scheduler.zeroTerminalSnr && scheduler.predictionType === "epsilon")
    throw new LorikeetError(
      "scheduler-config",
      "Expected prediction_type v_prediction with rescale_betas_zero_snr, got epsilon",
      { hint: "At the last time there is nothing but noise: predicting noise teaches nothing." },
    );
  return { ...pipeline, checkpoint: { ...checkpoint, scheduler } };
}

/** PEFT's folders, one for each model, beside diffusers' file. */
const storage: AdapterStorage = {
  async save(adapter, folder) {
    await saveImageAdapter(adapter, folder, "peft");
    await saveImageAdapter(adapter, folder, "diffusers");
  },
  load: (folder) => loadImageAdapter(folder),
};

async function openImageTask(
  pipeline: ImagePipeline,
  run: ResolvedRun,
  store: RunStore,
): Promise<TrainTask> {
  const { config } = run;
  const { weights, configs } = pipeline.checkpoint;
  checkImageLora(run.lora);
  const base = adapterBaseOf(pipeline, config);
  const lora = { ...run.lora, targetModules: targetsOf(run) };
  const start =
    resumedAt(store, completeConfig(lora, base)) ??
    startOf(pipeline) ??
    (await initialAdapter(lora, base, { seed: config.seed }));
  const sites = resolveTargets(lora, base.layers, base.family);
  const checkpointing = isCheckpointed(config);
  const plan: ImagePlan = { configs, sites, checkpointing, ...heldBy(config) };
  const shape = largestStep(pipeline, config);
  const captioned = await captionedFiles(config); // errors in captions come before any work
  const { engine, warnings } = await openTaskEngine(weights, run);
  try {
    if (engine.name === "onnx-cpu")
      warnings.push(...(await memoryWarnings(pipeline, config, plan, shape)));
    const files = { ...captioned, prior: await priorFiles(pipeline, run) };
    const trained = adaptedBy(pipeline, plan.sites, engine);
    const session = await openImageSession(trained);
    const data = await openImageData(session, { pipeline: trained, config: windowConfig(run), files, trainsText: trainsText(plan) }); // prettier-ignore
    const after = samplePainter(trained, session, run);
    return {
      ...{ engine, data, unit: "images", start, base, sites },
      warnings: [...data.warnings, ...targetWarnings(lora, plan.sites, base.layers), ...warnings],
      parameters: imageParameters(plan),
      ...stepGraphs(plan, config, (own, batch) => imageTrainingGraph(own, denoiseShape(batch))),
      evaluationGraphFor: (batch) => imageEvaluationGraph(plan, denoiseShape(batch)),
      ...(after && { after }),
      async review(adapter) {
        const urls = files.train.slice(0, SHOWN).map(({ path }) => thumbnailUrl(path, 192).catch(() => "")); // prettier-ignore
        const trainedOn = (await Promise.all(urls)).filter((url) => url !== "");
        return { samples: [], report: reportOf(pipeline.checkpoint, adapter, { trainedOn }) };
      },
    };
  } catch (error) {
    await engine.dispose();
    throw error;
  }
}

/** The sizes of a full batch. @throws LorikeetError `image-size` */
function largestStep(pipeline: ImagePipeline, config: TrainConfig): DenoiseShape {
  const { configs, tokenizers } = pipeline.checkpoint;
  const side = resolutionOf(pipeline, config) / vaeFactor(configs.vae);
  const { length } = tokenizers[0]!;
  return { batch: config.per_device_train_batch_size, height: side, width: side, length };
}

/** A warning where memory is tight. @throws LorikeetError `out-of-memory` when the run cannot fit */
async function memoryWarnings(
  pipeline: ImagePipeline,
  config: TrainConfig,
  plan: ImagePlan,
  shape: DenoiseShape,
): Promise<DataWarning[]> {
  const base = { source: pipeline.checkpoint.weights, dtype: config.base_dtype };
  const side = resolutionOf(pipeline, config);
  const row = `${side}×${side} pixels`;
  const mayExceed = !config.check_memory;
  const rows = { batch: shape.batch, row, option: "--resolution", mayExceed };
  return checkMemory(estimateImageMemory(plan, base, shape), await freeMemory(), rows);
}

/** The adapter of the checkpoint that the run continues; files of image adapters hold less than `config`. */
function resumedAt({ resumed }: RunStore, config: LoraConfig): Adapter | undefined {
  return resumed && { config, tensors: resumed.adapter.tensors };
}

/** The layers that may train: of the UNet, and with `train_text_encoder` of the text encoders. */
function adapterBaseOf({ layers, checkpoint }: ImagePipeline, config: TrainConfig): AdapterBase {
  return {
    layers: layers.filter(({ module }) => config.train_text_encoder || module.startsWith("unet.")),
    // no layer of the UNet is a head that "all-linear" would leave out
    family: { defaults: IMAGE_TARGETS, head: "lm_head" },
    uses: new Map(),
    weights: checkpoint.weights,
  };
}

/** @throws LorikeetError `lora-config` for what image models are not trained with */
function checkImageLora({ init, bias, trainableTokenIndices }: LoraConfig): void {
  const faults = [
    changesBase(init) || init === "eva" ? `init_lora_weights ${String(init)}` : "",
    bias === "none" ? "" : `bias ${bias}`,
    trainableTokenIndices === undefined ? "" : "trainable_token_indices",
  ].filter((fault) => fault !== "");
  if (faults.length > 0)
    throw new LorikeetError(
      "lora-config",
      `Expected A and B on the untouched base with task text-to-image, got ${faults.join(", ")}`,
      { hint: "Leave these settings out." },
    );
}

/** What `lora` targets; with `train_text_encoder` attention of the text encoders too. */
function targetsOf({ config, lora }: ResolvedRun): LoraConfig["targetModules"] {
  const { targetModules: targets } = lora;
  return config.train_text_encoder && Array.isArray(targets)
    ? [...(targets as readonly string[]), ...TEXT_TARGETS]
    : targets;
}

/** `pipeline` as it is on `engine`, with the adapter that is being trained there. */
function adaptedBy(
  pipeline: ImagePipeline,
  sites: ReadonlyMap<string, LoraSite>,
  engine: Engine,
): ImagePipeline {
  return {
    ...pipeline,
    adapt: (roots) => insertLora(roots, sites, { nameOf: peftKey }),
    openEngine: () => Promise.resolve(engine),
  };
}

/** The adapter that training goes on from. @throws LorikeetError `adapter-mismatch` when there are several */
function startOf({ adapters }: ImagePipeline): Adapter | undefined {
  if (adapters.length <= 1) return adapters[0]?.adapter;
  throw new LorikeetError(
    "adapter-mismatch",
    `Expected one adapter to go on training, got ${adapters.length}`,
    { hint: "Combine them, or merge all but one into the base." },
  );
}
