/** @file What every encoder family is built from and gives: hidden states, embeddings, class logits. */
import { LorikeetError } from "../errors.ts";
import type { Node } from "../ir/node.ts";
import { attention } from "../ops/attention.ts";
import { crossEntropy } from "../ops/cross-entropy.ts";
import { div } from "../ops/div.ts";
import { equal } from "../ops/equal.ts";
import { constant, input } from "../ops/leaf.ts";
import { mul } from "../ops/mul.ts";
import { reduceSum } from "../ops/reduce-sum.ts";
import { reshape } from "../ops/reshape.ts";
import { select } from "../ops/select.ts";
import { slice } from "../ops/slice.ts";
import type { AttentionLayer, Projections } from "./cached-attention.ts";
import { type HfConfig, numberField } from "./config.ts";

/** The run that an encoder graph is built for: one text a row, padded to `length` tokens. */
export interface EncoderSequence {
  readonly batch: number;
  readonly length: number;
}

/** An encoder with a sequence classification head, as a graph. Weights that a result does not need may be absent. */
export interface EncoderModel {
  /** Last hidden states, (B·T, C); rows of padding hold no meaning. */
  readonly hidden: Node;
  /** Mean of each text's hidden states, (B, C): a sentence embedding. */
  readonly mean: Node;
  /** What the family's own pooler makes of the first token, (B, C); undefined where it has none. */
  readonly pooled: Node | undefined;
  /** Logits of the classes, (B, labels). */
  readonly logits: Node;
}

/** Inputs of an encoder graph, each (B, T). */
export interface EncoderInputs {
  readonly ids: Node;
  /** Positions from 0. */
  readonly positions: Node;
  /** 1 for tokens of the text, 0 for padding: a token sees those of its own kind. */
  readonly segments: Node;
}

/** The inputs `input_ids`, `position_ids` and `segments`. */
export function encoderInputs({ batch, length }: EncoderSequence): EncoderInputs {
  const whole = (name: string): Node => input(name, [batch, length], "i64");
  return {
    ids: whole("input_ids"),
    positions: whole("position_ids"),
    segments: whole("segments"),
  };
}

/** Attention in both directions among the tokens of a text: (B·T, heads·headDim). */
export function fullAttention(
  { segments }: EncoderInputs,
  { q, k, v }: Projections,
  { heads, headDim, scale, window = 0 }: AttentionLayer,
): Node {
  const split = (x: Node): Node => reshape(x, { shape: [...segments.shape, heads, headDim] });
  const options = { scale, causal: false, window };
  const y = attention(split(q), split(k), split(v), segments, segments, options);
  return reshape(y, { shape: q.shape });
}

/** The first row of each text of x (B·T, C): (B, C). */
export function firstTokens(x: Node, { batch, length }: EncoderSequence): Node {
  const C = x.shape[1]!;
  const byText = reshape(x, { shape: [batch, length, C] });
  return reshape(slice(byText, { axis: 1, start: 0, end: 1 }), { shape: [batch, C] });
}

/** Mean over each text's tokens of x (B·T, C), without its padding: (B, C). */
export function meanOfTokens(x: Node, { segments }: EncoderInputs): Node {
  const [batch, length] = segments.shape as [number, number];
  const isToken = equal(segments, constant(1, [], "i64"));
  const shares = select(isToken, constant(1), constant(0));
  const byText = reshape(x, { shape: [batch, length, x.shape[1]!] });
  const masked = mul(byText, reshape(shares, { shape: [batch, length, 1] }));
  const counts = reduceSum(shares, { axes: [1], keepDims: true });
  return div(reduceSum(masked, { axes: [1] }), counts);
}

/** Number of classes that `config` names. */
export function labelCount(config: HfConfig): number {
  const names = config["id2label"] as Readonly<Record<string, string>> | null | undefined;
  return numberField(config, "num_labels", names ? Object.keys(names).length : 2);
}

/**
 * Cross-entropy of class `logits` (B, labels): Σ weights · loss, with the inputs `targets` (B) and
 * `loss_weights` (B).
 * @throws LorikeetError `model-config` when the model is no classifier into one of several classes
 */
export function classificationLoss(logits: Node, config: HfConfig): Node {
  const [batch, labels] = logits.shape as [number, number];
  const problem = config["problem_type"] ?? "single_label_classification";
  if (problem !== "single_label_classification" || labels < 2)
    throw new LorikeetError(
      "model-config",
      `Expected a model that picks one of at least 2 labels, got problem_type ${JSON.stringify(problem)} with ${labels}`,
      { hint: "Regression and several labels at once are not supported." },
    );
  return crossEntropy(logits, input("targets", [batch], "i64"), input("loss_weights", [batch]));
}
