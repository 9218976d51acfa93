/** @file UNets on the GPU: the loss and gradients that diffusers and PEFT get. */
import { peftKey } from "../../src/adapter/adapter.ts";
import { adapterFromDiffusers } from "../../src/adapter/formats/diffusers.ts";
import { attachImageAdapter } from "../../src/adapter/image-adapter.ts";
import { cudaEngine } from "../../src/backends/cuda/engine.ts";
import type { Precision } from "../../src/backends/cuda/plan/graph.ts";
import { denoised, givenCondition } from "../../src/diffusion/pipeline-graphs.ts";
import type { PredictionType } from "../../src/diffusion/scheduler-config.ts";
import { loraCandidates } from "../../src/passes/lora.ts";
import { convert, toFloat64 } from "../../src/tensor/convert.ts";
import { denoiseShape, imageTrainingGraph } from "../../src/train/image-plan.ts";
import { readLoraFile, readTensors, trainingBatch, unetFixture } from "../support/diffusion.ts";
import { type Check, relativeError } from "./check.ts";

/**
 * Relative errors allowed. This small net magnifies what is rounded to 16 bits: PyTorch's own gradients in bf16 (autocast,
 * f32 adapters) are up to 0.47 from its f32 ones on the SD 1 fixture, and no nearer than 1 on SDXL's, so that is for f32 alone.
 */
const LIMITS: Readonly<Record<Precision, { loss: number; gradient: number }>> = {
  f32: { loss: 1e-4, gradient: 1e-4 },
  bf16: { loss: 1e-2, gradient: 0.6 },
  f16: { loss: 1e-3, gradient: 0.6 / 8 },
};

interface Case {
  readonly name: string;
  readonly precision: Precision;
  readonly prediction: PredictionType;
  /** Min-SNR weights and checkpointing, or neither. */
  readonly weighted: boolean;
}

/** Loss and the gradient of every adapter of one step, against diffusers' and PEFT's. */
async function checkTraining({ name, precision, prediction, weighted }: Case): Promise<string> {
  const { configs, weights, feeds } = await unetFixture(name.split("-")[0]!);
  const expected = await readTensors(`lora/${name}/expected.safetensors`);
  const file = await readLoraFile(`lora/${name}/pytorch_lora_weights.safetensors`);
  const shape = denoiseShape(feeds);
  const candidates = loraCandidates([denoised(configs, givenCondition(configs, shape), shape)]);
  const { sites, values } = attachImageAdapter(adapterFromDiffusers(file), candidates);
  const engine = cudaEngine(weights, { precision });
  const { lossScale = 1 } = engine;
  try {
    for (const [key, value] of values) await engine.set(key, convert(value, "f32"));
    const graph = imageTrainingGraph({ configs, sites, checkpointing: weighted }, shape);
    const program = await engine.compile(graph);
    const batch = trainingBatch(feeds, expected.get("noise")!, prediction, weighted);
    const scaled = toFloat64(batch["loss_weights"]!).map((weight) => weight * lossScale);
    const data = Float32Array.from(scaled);
    const { loss } = await program.run({
      ...batch,
      loss_weights: { ...batch["loss_weights"]!, dtype: "f32", data },
    });
    const key = prediction + (weighted ? ".min_snr" : "");
    const wanted = Number(expected.get(`${key}.loss`)!.data[0]);
    const distance = Math.abs(Number(loss!.data[0]) / lossScale / wanted - 1);
    if (!(distance <= LIMITS[precision].loss))
      throw new Error(`loss: expected ${wanted}, got a relative distance of ${distance}`);
    const prefix = `${key}.grad.`;
    const errors: { entry: string; error: number }[] = [];
    for (const [entry, want] of expected) {
      if (!entry.startsWith(prefix)) continue;
      const [, module, part] = /^(.+)\.(lora_[AB]\.weight)$/.exec(entry.slice(prefix.length))!;
      const got = toFloat64(await engine.get(`${peftKey(`unet.${module!}`, part!)}.grad`));
      const error = relativeError(
        got.map((value) => value / lossScale),
        toFloat64(want),
      );
      errors.push({ entry, error });
    }
    errors.sort((a, b) => b.error - a.error);
    const [worst] = errors;
    if (!worst || !(worst.error <= LIMITS[precision].gradient))
      throw new Error(`gradients: ${JSON.stringify(errors.slice(0, 4))}`);
    return `loss ${distance.toExponential(1)}, ${errors.length} gradients ${worst.error.toExponential(1)} (${worst.entry})`;
  } finally {
    await engine.dispose();
  }
}

const F32 = [
  { precision: "f32", prediction: "epsilon", weighted: false },
  { precision: "f32", prediction: "v_prediction", weighted: true },
] as const;

const HALF = [
  { precision: "bf16", prediction: "epsilon", weighted: true },
  { precision: "bf16", prediction: "v_prediction", weighted: false },
  { precision: "f16", prediction: "epsilon", weighted: false },
] as const;

const CASES: readonly Case[] = [
  ...[...F32, ...HALF].map((each) => ({ ...each, name: "sd1-attention" })),
  ...F32.map((each) => ({ ...each, name: "sdxl-attention" })),
];

export const checks: readonly Check[] = CASES.map((each) => ({
  name: `image ${each.name} ${each.precision} ${each.prediction}${each.weighted ? " min-SNR checkpointed" : ""}`,
  run: () => checkTraining(each),
}));
