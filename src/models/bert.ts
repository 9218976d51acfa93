import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { input, parameter } from "../ops/leaf.ts";
import { tanh } from "../ops/tanh.ts";
import { activationOf } from "./activation.ts";
import { type HfConfig, numberField, oneOf } from "./config.ts";
import {
  type EncoderInputs,
  encoderInputs,
  type EncoderModel,
  type EncoderSequence,
  firstTokens,
  fullAttention,
  labelCount,
  meanOfTokens,
} from "./encoder.ts";
import { dense, embed, embedPositions, meanNorm } from "./layers.ts";

/** BERT for sequence classification and embeddings. https://arxiv.org/abs/1810.04805 */
export function bert(config: HfConfig, sequence: EncoderSequence): EncoderModel {
  const { hidden, mean, pooled } = bertLike(config, sequence, { name: "bert", offset: 0 });
  const logits = dense(pooled, "classifier", labelCount(config), { bias: true });
  return { hidden, mean, pooled, logits };
}

/** The encoder without a head. */
export interface BertEncoder {
  readonly hidden: Node;
  readonly mean: Node;
  readonly pooled: Node;
}

/** An encoder in BERT's layout: three embeddings, a layer norm after each block. `offset`: rows before position 0. */
export function bertLike(
  config: HfConfig,
  sequence: EncoderSequence,
  { name, offset }: { name: string; offset: number },
): BertEncoder {
  oneOf(config, "position_embedding_type", ["absolute"], "absolute");
  const inputs = encoderInputs(sequence);
  let x = boundary(embedded(config, inputs, { name: `${name}.embeddings`, offset }));
  for (let index = 0; index < numberField(config, "num_hidden_layers"); index++)
    x = boundary(encoderLayer(config, inputs, `${name}.encoder.layer.${index}`, x));
  const first = firstTokens(x, sequence);
  const pooled = tanh(dense(first, `${name}.pooler.dense`, x.shape[1]!, { bias: true }));
  return { hidden: x, mean: meanOfTokens(x, inputs), pooled };
}

function embedded(
  config: HfConfig,
  { ids, positions }: EncoderInputs,
  { name, offset }: { name: string; offset: number },
): Node {
  const features = numberField(config, "hidden_size");
  const rows = numberField(config, "max_position_embeddings");
  const types = numberField(config, "type_vocab_size", 2);
  const vocabulary = numberField(config, "vocab_size");
  const words = parameter(`${name}.word_embeddings.weight`, [vocabulary, features]);
  const kinds = parameter(`${name}.token_type_embeddings.weight`, [types, features]);
  // a table of one row is added as it is, so that no input of zeros is needed
  const kind = types === 1 ? kinds : embed(input("token_type_ids", ids.shape, "i64"), kinds);
  const places = { rows, features, offset };
  const place = embedPositions(positions, `${name}.position_embeddings`, places);
  return normOf(config, add(add(embed(ids, words), kind), place), `${name}.LayerNorm`);
}

function encoderLayer(config: HfConfig, inputs: EncoderInputs, name: string, x: Node): Node {
  const hidden = x.shape[1]!;
  const heads = numberField(config, "num_attention_heads");
  const headDim = hidden / heads;
  const layer = { heads, keyHeads: heads, headDim, scale: 1 / Math.sqrt(headDim) };
  const full = (y: Node, part: string, size: number): Node =>
    dense(y, `${name}.${part}`, size, { bias: true });
  const projections = {
    q: full(x, "attention.self.query", hidden),
    k: full(x, "attention.self.key", hidden),
    v: full(x, "attention.self.value", hidden),
  };
  const attended = full(
    fullAttention(inputs, projections, layer),
    "attention.output.dense",
    hidden,
  );
  const between = normOf(config, add(attended, x), `${name}.attention.output.LayerNorm`);
  const inner = full(between, "intermediate.dense", numberField(config, "intermediate_size"));
  const out = full(activationOf(config, "hidden_act", "gelu")(inner), "output.dense", hidden);
  return normOf(config, add(out, between), `${name}.output.LayerNorm`);
}

function normOf(config: HfConfig, x: Node, name: string): Node {
  return meanNorm(x, name, numberField(config, "layer_norm_eps", 1e-12));
}
