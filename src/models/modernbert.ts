import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { parameter } from "../ops/leaf.ts";
import { mul } from "../ops/mul.ts";
import { activationOf } from "./activation.ts";
import { flagField, type HfConfig, numberField, oneOf } from "./config.ts";
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
import { slidingLayers, withRopeByType } from "./layer-types.ts";
import { dense, embed, meanNorm, rotate, splitColumns } from "./layers.ts";
import { type Angles, anglesOf, rotaryOf } from "./rotary.ts";

/** ModernBERT: rotary, gated, norms first, most layers windowed. https://arxiv.org/abs/2412.13663 */
export function modernbert(config: HfConfig, sequence: EncoderSequence): EncoderModel {
  const features = numberField(config, "hidden_size");
  const inputs = encoderInputs(sequence);
  const layerAt = layersOf(config, inputs);
  const vocabulary = numberField(config, "vocab_size");
  const table = parameter("model.embeddings.tok_embeddings.weight", [vocabulary, features]);
  let x = boundary(normOf(config, embed(inputs.ids, table), "model.embeddings.norm"));
  for (let index = 0; index < numberField(config, "num_hidden_layers"); index++) {
    const name = `model.layers.${index}`;
    // the first layer's input is normalised by the embeddings already
    const normed = index === 0 ? x : normOf(config, x, `${name}.attn_norm`);
    x = add(x, selfAttention(config, inputs, normed, { name: `${name}.attn`, ...layerAt(index) }));
    x = boundary(add(x, mlp(config, normOf(config, x, `${name}.mlp_norm`), `${name}.mlp`)));
  }
  const hidden = normOf(config, x, "model.final_norm");
  const mean = meanOfTokens(hidden, inputs);
  const pooling = oneOf(config, "classifier_pooling", ["cls", "mean"], "cls");
  const pooled = pooling === "mean" ? mean : firstTokens(hidden, sequence);
  const bias = flagField(config, "classifier_bias", false);
  const inner = dense(pooled, "head.dense", features, { bias });
  const activation = activationOf(config, "classifier_activation", "gelu");
  const head = normOf(config, activation(inner), "head.norm");
  const logits = dense(head, "classifier", labelCount(config), { bias: true });
  return { hidden, mean, pooled: undefined, logits };
}

interface Layer {
  readonly angles: Angles;
  /** Tokens seen to either side, itself included; 0: all. */
  readonly window: number;
}

/** What differs from layer to layer: full ones and windowed ones, each with its own rotary base. */
function layersOf(config: HfConfig, { positions }: EncoderInputs): (layer: number) => Layer {
  const every = numberField(config, "global_attn_every_n_layers", 3);
  const isSliding = slidingLayers(config, (layer) => layer % every === 0);
  const bases = { full: "global_rope_theta", sliding: "local_rope_theta" };
  const spelled = withRopeByType(config, { ...bases, defaults: [160000, 10000] });
  const headDim = numberField(config, "hidden_size") / numberField(config, "num_attention_heads");
  const anglesFor = (layerType: string): Angles =>
    anglesOf(rotaryOf(spelled, headDim, { layerType, length: positions.shape[1]! }), positions);
  const window = Math.floor(numberField(config, "local_attention", 128) / 2) + 1;
  const full: Layer = { angles: anglesFor("full_attention"), window: 0 };
  const sliding: Layer = { angles: anglesFor("sliding_attention"), window };
  return (layer) => (isSliding(layer) ? sliding : full);
}

function selfAttention(
  config: HfConfig,
  inputs: EncoderInputs,
  x: Node,
  { name, angles, window }: Layer & { name: string },
): Node {
  const hidden = x.shape[1]!;
  const heads = numberField(config, "num_attention_heads");
  const headDim = hidden / heads;
  const bias = flagField(config, "attention_bias", false);
  const fused = dense(x, `${name}.Wqkv`, 3 * hidden, { bias });
  const [q, k, v] = splitColumns(fused, [hidden, hidden, hidden]) as [Node, Node, Node];
  const attended = fullAttention(
    inputs,
    { q: rotate(q, heads, angles), k: rotate(k, heads, angles), v },
    { heads, keyHeads: heads, headDim, scale: 1 / Math.sqrt(headDim), window },
  );
  return dense(attended, `${name}.Wo`, hidden, { bias });
}

function mlp(config: HfConfig, x: Node, name: string): Node {
  const inner = numberField(config, "intermediate_size");
  const bias = flagField(config, "mlp_bias", false);
  const both = dense(x, `${name}.Wi`, 2 * inner, { bias });
  const [gate, up] = splitColumns(both, [inner, inner]) as [Node, Node];
  const activation = activationOf(config, "hidden_activation", "gelu");
  return dense(mul(activation(gate), up), `${name}.Wo`, x.shape[1]!, { bias });
}

function normOf(config: HfConfig, x: Node, name: string): Node {
  const bias = flagField(config, "norm_bias", false);
  return meanNorm(x, name, numberField(config, "norm_eps", 1e-5), { bias });
}
