import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { activationOf } from "./activation.ts";
import { cachedAttention, decoderContext, type DecoderContext } from "./cached-attention.ts";
import type { CausalLM, Sequence } from "./causal-lm.ts";
import { flagField, type HfConfig, numberField } from "./config.ts";
import { dense, embed, embedPositions, meanNorm } from "./layers.ts";

const NAME = "model.decoder";
const EPS = 1e-5;
/** Rows of the position table before that of position 0. */
const OFFSET = 2;

/** OPT as a graph; narrow embeddings are projected (350M), and its norms may come after each block. https://arxiv.org/abs/2205.01068 */
export function opt(config: HfConfig, sequence: Sequence): CausalLM {
  const hidden = numberField(config, "hidden_size");
  const vocabulary = numberField(config, "vocab_size");
  const narrow = numberField(config, "word_embed_proj_dim", hidden);
  const isNormFirst = flagField(config, "do_layer_norm_before", true);
  const context = decoderContext(sequence);
  const table = parameter(`${NAME}.embed_tokens.weight`, [vocabulary, narrow]);
  let x = embedded(config, context, table);
  for (let index = 0; index < numberField(config, "num_hidden_layers"); index++)
    x = boundary(decoderLayer(config, context, index, x));
  if (isNormFirst && !flagField(config, "_remove_final_layer_norm", false))
    x = normOf(config, x, `${NAME}.final_layer_norm`);
  if (narrow !== hidden) x = dense(x, `${NAME}.project_out`, narrow);
  const isTied = flagField(config, "tie_word_embeddings", true);
  const headWeight = isTied ? table : parameter("lm_head.weight", [vocabulary, narrow]);
  return {
    hidden: x,
    head: (rows) => linear(rows, headWeight, { module: "lm_head" }),
    present: context.present,
  };
}

function embedded(config: HfConfig, { inputs }: DecoderContext, table: Node): Node {
  const hidden = numberField(config, "hidden_size");
  const rows = numberField(config, "max_position_embeddings") + OFFSET;
  const places = { rows, features: hidden, offset: OFFSET };
  const tokens = embed(inputs.ids, table);
  const isWide = table.shape[1] === hidden;
  const wide = isWide ? tokens : dense(tokens, `${NAME}.project_in`, hidden);
  return boundary(add(wide, embedPositions(inputs.positions, `${NAME}.embed_positions`, places)));
}

function decoderLayer(config: HfConfig, context: DecoderContext, index: number, x: Node): Node {
  const name = `${NAME}.layers.${index}`;
  const hidden = x.shape[1]!;
  const bias = flagField(config, "enable_bias", true);
  const isNormFirst = flagField(config, "do_layer_norm_before", true);
  const activation = activationOf(config, "activation_function", "relu");
  const before = (y: Node, norm: string): Node => (isNormFirst ? normOf(config, y, norm) : y);
  const after = (y: Node, norm: string): Node => (isNormFirst ? y : normOf(config, y, norm));
  const source = before(x, `${name}.self_attn_layer_norm`);
  const project = (part: string): Node =>
    dense(source, `${name}.self_attn.${part}_proj`, hidden, { bias });
  const heads = numberField(config, "num_attention_heads");
  const headDim = hidden / heads;
  const attended = cachedAttention(
    context,
    index,
    { q: project("q"), k: project("k"), v: project("v") },
    { heads, keyHeads: heads, headDim, scale: 1 / Math.sqrt(headDim) },
  );
  const out = dense(attended, `${name}.self_attn.out_proj`, hidden, { bias });
  const between = after(add(x, out), `${name}.self_attn_layer_norm`);
  const inner = numberField(config, "ffn_dim");
  const mlpInput = before(between, `${name}.final_layer_norm`);
  const up = dense(mlpInput, `${name}.fc1`, inner, { bias });
  const down = dense(activation(up), `${name}.fc2`, hidden, { bias });
  return after(add(between, down), `${name}.final_layer_norm`);
}

function normOf(config: HfConfig, x: Node, name: string): Node {
  const isAffine = flagField(config, "layer_norm_elementwise_affine", true);
  return meanNorm(x, name, EPS, { weight: isAffine, bias: isAffine });
}
