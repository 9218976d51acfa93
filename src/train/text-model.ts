/** @file What text models, decoders and encoders alike, give to training. */
import type { Node } from "../ir/node.ts";
import type { HfConfig } from "../models/config.ts";
import { classificationLoss } from "../models/encoder.ts";
import { causalLM, encoderModel, encoderModelTypes } from "../models/registry.ts";
import { crossEntropy } from "../ops/cross-entropy.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { input } from "../ops/leaf.ts";
import type { StepShape } from "./plan.ts";

/** Whether `config` describes an encoder: a classifier of whole texts. */
export function isEncoder(config: HfConfig): boolean {
  return encoderModelTypes.includes(String(config["model_type"]));
}

/** Logits of the plain model: of every position (B·T, V), or of the classes (B, labels). */
export function plainLogits(
  config: HfConfig,
  { batch, length, hasSegments = false }: Pick<StepShape, "batch" | "length"> & Partial<StepShape>,
): Node {
  if (isEncoder(config)) return encoderModel(config, { batch, length }).logits;
  const model = causalLM(config, { batch, length, hasSegments });
  return model.head(model.hidden);
}

/**
 * Σ weight · cross-entropy of the plain model, with the inputs `targets` and `loss_weights`: of the positions
 * `loss_rows`, or of each text.
 */
export function plainLoss(config: HfConfig, { batch, length, rows, hasSegments }: StepShape): Node {
  if (isEncoder(config)) return classificationLoss(plainLogits(config, { batch, length }), config);
  const model = causalLM(config, { batch, length, hasSegments });
  const logits = model.head(gatherRows(model.hidden, input("loss_rows", [rows], "i64")));
  return crossEntropy(logits, input("targets", [rows], "i64"), input("loss_weights", [rows]));
}
