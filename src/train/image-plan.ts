import { peftKey } from "../adapter/adapter.ts";
import type { Tensors } from "../backends/backend.ts";
import {
  denoised,
  type DenoiseShape,
  givenCondition,
  type PipelineConfigs,
  textCondition,
} from "../diffusion/pipeline-graphs.ts";
import { type Graph, topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { input, isTrainable } from "../ops/leaf.ts";
import { mean } from "../ops/mean.ts";
import { mul } from "../ops/mul.ts";
import { reduceSum } from "../ops/reduce-sum.ts";
import { sub } from "../ops/sub.ts";
import { insertLora } from "../passes/lora.ts";
import { stepGraph, type StepPlan } from "./step-graph.ts";

/** What trains of a Stable Diffusion pipeline (modules are `unet.…` and `text_encoder.…`), and how the backward pass uses memory. */
export interface ImagePlan extends StepPlan {
  readonly configs: PipelineConfigs;
}

/** PEFT's module endings that image models adapt by default: attention. */
export const IMAGE_TARGETS: readonly string[] = ["to_q", "to_k", "to_v", "to_out.0"];

/** Whether the text encoders are part of a step, as something of theirs trains. */
export function trainsText({ sites }: ImagePlan): boolean {
  return [...sites.keys()].some((module) => module.startsWith("text_encoder"));
}

/** The sizes of a batch: what its step is compiled for. */
export function denoiseShape(batch: Tensors): DenoiseShape {
  const [size, , height, width] = batch["sample"]!.shape as [number, number, number, number];
  const length = (batch["encoder_hidden_states"] ?? batch["input_ids"])!.shape[1]!;
  return { batch: size, height, width, length };
}

/**
 * One forward and backward pass on noisy latents: output `loss`, Σ over rows of `loss_weights` · mean((output −
 * `target`)²), and a gradient for everything that trains.
 */
export function imageTrainingGraph(plan: ImagePlan, shape: DenoiseShape): Graph {
  return stepGraph(plan, (seed) => lossOf(plan, shape, seed));
}

/** The loss alone, without dropout. */
export function imageEvaluationGraph(plan: ImagePlan, shape: DenoiseShape): Graph {
  return { outputs: { loss: lossOf(plan, shape, undefined) }, gradients: {} };
}

/** Name and shape of everything that trains, in the order of execution. */
export function imageParameters(plan: ImagePlan): Node[] {
  const size = 2 ** ((plan.configs.unet["block_out_channels"] as readonly number[]).length - 1);
  const shape = { batch: 1, height: size, width: size, length: 1 };
  return topological([lossOf(plan, shape, undefined)]).filter(isTrainable);
}

function lossOf(plan: ImagePlan, shape: DenoiseShape, seed: Node | undefined): Node {
  const { configs, sites } = plan;
  const text = trainsText(plan) ? textCondition(configs, shape) : givenCondition(configs, shape);
  const output = denoised(configs, text, shape);
  const [adapted] = insertLora([output], sites, { nameOf: peftKey, ...(seed && { seed }) }) as [
    Node,
  ];
  const error = sub(adapted, input("target", adapted.shape));
  const each = mean(mul(error, error), { axes: [1, 2, 3] });
  return reduceSum(mul(each, input("loss_weights", [shape.batch])), { axes: [0] });
}
