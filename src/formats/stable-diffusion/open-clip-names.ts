/** @file Names of a text encoder's weights in OpenCLIP (SD 2, the second encoder of SDXL) and in transformers. */

/** Where a weight of transformers comes from in OpenCLIP's. */
export interface OpenClipPlace {
  readonly name: string;
  /** Which third of the rows: query, key and value are one matrix there. */
  readonly third?: 0 | 1 | 2;
  /** Stored (in, out). */
  readonly isTransposed?: boolean;
}

const tops: Readonly<Record<string, string>> = {
  "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
  "text_model.embeddings.position_embedding.weight": "positional_embedding",
  "text_model.final_layer_norm.weight": "ln_final.weight",
  "text_model.final_layer_norm.bias": "ln_final.bias",
};

const inLayer: Readonly<Record<string, string>> = {
  layer_norm1: "ln_1",
  layer_norm2: "ln_2",
  "mlp.fc1": "mlp.c_fc",
  "mlp.fc2": "mlp.c_proj",
  "self_attn.out_proj": "attn.out_proj",
};

/** Where OpenCLIP keeps the weight that transformers calls `name`; undefined when it has none such. */
export function openClipPlace(name: string): OpenClipPlace | undefined {
  if (name === "text_projection.weight") return { name: "text_projection", isTransposed: true };
  const top = tops[name];
  if (top !== undefined) return { name: top };
  const [, layer, part, kind] =
    /^text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  if (layer === undefined) return undefined;
  const block = `transformer.resblocks.${layer}`;
  const third = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].indexOf(part!);
  if (third >= 0) return { name: `${block}.attn.in_proj_${kind!}`, third: third as 0 | 1 | 2 };
  const theirs = inLayer[part!];
  return theirs === undefined ? undefined : { name: `${block}.${theirs}.${kind!}` };
}
