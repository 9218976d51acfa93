import { tanh } from "../ops/tanh.ts";
import { bertLike } from "./bert.ts";
import { type HfConfig, numberField } from "./config.ts";
import { type EncoderModel, type EncoderSequence, firstTokens, labelCount } from "./encoder.ts";
import { dense } from "./layers.ts";

/** RoBERTa: BERT's layout, positions after that of padding, a classifier of two layers. https://arxiv.org/abs/1907.11692 */
export function roberta(config: HfConfig, sequence: EncoderSequence): EncoderModel {
  const offset = numberField(config, "pad_token_id", 1) + 1;
  const encoder = bertLike(config, sequence, { name: "roberta", offset });
  const hidden = numberField(config, "hidden_size");
  const first = firstTokens(encoder.hidden, sequence);
  const inner = tanh(dense(first, "classifier.dense", hidden, { bias: true }));
  const logits = dense(inner, "classifier.out_proj", labelCount(config), { bias: true });
  return { ...encoder, logits };
}
