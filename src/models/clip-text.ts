import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { attention } from "../ops/attention.ts";
import { boundary } from "../ops/boundary.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { reshape } from "../ops/reshape.ts";
import { slice } from "../ops/slice.ts";
import { activationOf } from "./activation.ts";
import { type HfConfig, numberField } from "./config.ts";
import { dense, embed, meanNorm } from "./layers.ts";

/** What a CLIP text encoder reads. */
export interface ClipTextInputs {
  /** Token ids, (B, T) i64, from position 0. */
  readonly ids: Node;
  /** The row of (B·T) whose hidden state stands for each text, (B) i64: `pooledPosition` in each text. */
  readonly pooledRows?: Node;
}

/** A CLIP text encoder as a graph. Weights that a result does not need may be absent. */
export interface ClipText {
  /** After the final norm, (B·T, C). */
  readonly hidden: Node;
  /** After each layer, before the final norm: `layers[0]` is the embedding. */
  readonly layers: readonly Node[];
  /** The final hidden state of each text's end, (B, C), projected to (B, P) where the model has a projection. */
  readonly pooled: Node | undefined;
}

const NAME = "text_model";

/** CLIP's text encoder, CLIPTextModel and CLIPTextModelWithProjection. https://arxiv.org/abs/2103.00020 */
export function clipText(config: HfConfig, { ids, pooledRows }: ClipTextInputs): ClipText {
  const [batch, length] = ids.shape as [number, number];
  const eps = numberField(config, "layer_norm_eps", 1e-5);
  let x = boundary(embedded(config, ids));
  const layers = [x];
  for (let i = 0; i < numberField(config, "num_hidden_layers"); i++) {
    x = boundary(layer(config, x, `${NAME}.encoder.layers.${i}`, { batch, length, eps }));
    layers.push(x);
  }
  const hidden = meanNorm(x, `${NAME}.final_layer_norm`, eps);
  const ends = pooledRows && gatherRows(hidden, pooledRows);
  return { hidden, layers, pooled: ends && (isProjected(config) ? project(config, ends) : ends) };
}

/**
 * The position whose hidden state stands for a text: its first end token; in models that call it 2 (published before
 * that was corrected) the largest id, which is the same token.
 */
export function pooledPosition(ids: readonly number[], config: HfConfig): number {
  const end = numberField(config, "eos_token_id", 49407);
  return Math.max(0, ids.indexOf(end === 2 ? Math.max(...ids) : end));
}

/** The name that `clipText` has for the weight that a checkpoint calls `stored`: some are saved without `text_model.`. */
export function clipWeightName(stored: string): string {
  return /^(embeddings|encoder|final_layer_norm)\./.test(stored) ? `${NAME}.${stored}` : stored;
}

function isProjected(config: HfConfig): boolean {
  const names = config["architectures"];
  return Array.isArray(names) && names.includes("CLIPTextModelWithProjection");
}

function project(config: HfConfig, x: Node): Node {
  const shape = [numberField(config, "projection_dim", 512), x.shape[1]!];
  return linear(x, parameter("text_projection.weight", shape));
}

function embedded(config: HfConfig, ids: Node): Node {
  const [B, T] = ids.shape as [number, number];
  const C = numberField(config, "hidden_size");
  const rows = numberField(config, "max_position_embeddings", 77);
  const table = parameter(`${NAME}.embeddings.token_embedding.weight`, [
    numberField(config, "vocab_size"),
    C,
  ]);
  const places = parameter(`${NAME}.embeddings.position_embedding.weight`, [rows, C]);
  const words = reshape(embed(ids, table), { shape: [B, T, C] });
  const sum = add(words, slice(places, { axis: 0, start: 0, end: T }));
  return reshape(sum, { shape: [B * T, C] });
}

function layer(
  config: HfConfig,
  x: Node,
  name: string,
  { batch, length, eps }: { batch: number; length: number; eps: number },
): Node {
  const C = x.shape[1]!;
  const heads = numberField(config, "num_attention_heads");
  const full = (y: Node, part: string, size: number): Node =>
    dense(y, `${name}.${part}`, size, { bias: true });
  const normed = meanNorm(x, `${name}.layer_norm1`, eps);
  const [q, k, v] = ["q", "k", "v"].map((part) =>
    reshape(full(normed, `self_attn.${part}_proj`, C), {
      shape: [batch, length, heads, C / heads],
    }),
  ) as [Node, Node, Node];
  const attended = attention(q, k, v, undefined, undefined, {
    scale: 1 / Math.sqrt(C / heads),
    causal: true,
  });
  const own = add(x, full(reshape(attended, { shape: x.shape }), "self_attn.out_proj", C));
  const size = numberField(config, "intermediate_size");
  const inner = full(meanNorm(own, `${name}.layer_norm2`, eps), "mlp.fc1", size);
  const active = activationOf(config, "hidden_act", "quick_gelu")(inner);
  return add(own, full(active, "mlp.fc2", C));
}
