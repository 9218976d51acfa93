import type { Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { faultsError, quoteName } from "../faults.ts";
import type { ModelConfig } from "./config.ts";
import { configToGguf } from "./config-write.ts";
import type { GgufMetadata, GgufValue } from "./metadata.ts";
import { type GgufTransform, toGgufName } from "./names.ts";
import type { WritableType } from "./quantize.ts";
import { tokenizerToGguf } from "./tokenizer-write.ts";
import { applyGgufTransform, type HeadCounts } from "./transform.ts";
import { type GgufTensorSpec, storedType } from "./write.ts";

/** A model in Hugging Face layout; weights are read when they are needed. */
export interface ExportedModel {
  readonly name: string;
  readonly config: ModelConfig;
  /** tokenizer.json; a file without a tokenizer cannot chat, but is valid. */
  readonly tokenizer?: Readonly<Record<string, unknown>>;
  readonly tokenizerConfig?: Readonly<Record<string, unknown>>;
  readonly weights: {
    readonly names: readonly string[];
    readonly get: (name: string) => { readonly shape: Shape };
    readonly read: (name: string) => Promise<Tensor>;
  };
}

/** What `encodeGguf` is given to write a model. */
export interface GgufExport {
  readonly metadata: GgufMetadata;
  readonly specs: readonly GgufTensorSpec[];
  readonly read: (name: string) => Promise<Tensor>;
  /** Where llama.cpp will run the model otherwise than its config says. */
  readonly warnings: readonly string[];
}

/** Buffers that old checkpoints hold and no model needs. */
const BUFFERS = /(rotary_emb\.inv_freq|\.attn\.bias|\.attn\.masked_bias)$/;

/**
 * Plans the GGUF file of a model for llama.cpp: names, order, values and metadata as its converter makes them.
 * @throws LorikeetError `unsupported-architecture`, `unsupported-gguf` (also for weights that llama.cpp has no place
 * for, all of them listed), `unsupported-tokenizer`, `model-config`
 */
export function planGgufModel(model: ExportedModel, { type }: { type: WritableType }): GgufExport {
  const { config, weights } = model;
  const { architecture, metadata, extraTensors } = configToGguf(config, { type, name: model.name });
  const isTied = config["tie_word_embeddings"] === true;
  const sources = new Map<string, { hf: string; transform: GgufTransform }>();
  const unplaced: string[] = [];
  for (const hf of weights.names) {
    if (BUFFERS.test(hf) || (isTied && hf === "lm_head.weight")) continue;
    const mapped = toGgufName(architecture, hf);
    if (mapped) sources.set(mapped.name, { hf, transform: mapped.transform });
    else unplaced.push(`weight ${quoteName(hf)}`);
  }
  if (unplaced.length > 0)
    throw faultsError("unsupported-gguf", `every weight to have a place in a GGUF file of architecture ${architecture}`, unplaced, "Save it as a Hugging Face folder (safetensors) instead."); // prettier-ignore
  const spec = (name: string, shape: Shape): GgufTensorSpec => ({ name, type: storedType(type, shape), shape }); // prettier-ignore
  const extras = [...extraTensors].map(([name, { shape }]) => spec(name, shape));
  const specs = [...sources].map(([name, { hf, transform }]) => {
    const { shape } = weights.get(hf);
    return spec(name, transform === "transpose" ? [...shape].reverse() : shape);
  });
  const heads = headsOf(config);
  return {
    metadata: new Map([...metadata, ...tokenizerMetadata(model)]),
    specs: [...extras, ...specs],
    warnings: warningsOf(config),
    async read(name) {
      const source = sources.get(name);
      if (!source) return extraTensors.get(name)!;
      return applyGgufTransform(await weights.read(source.hf), source.transform, heads);
    },
  };
}

function warningsOf(config: ModelConfig): string[] {
  const { model_type: type, sliding_window: window, max_position_embeddings: longest } = config;
  const isIgnored = type === "mistral" || type === "phi3";
  if (!isIgnored || typeof window !== "number" || window >= Number(longest)) return [];
  return [
    `llama.cpp ignores the sliding window of ${window} tokens: longer texts get other answers`,
  ];
}

function headsOf(config: ModelConfig): HeadCounts {
  const heads = Number(config["num_attention_heads"] ?? config["n_head"]);
  return { heads, keyValueHeads: Number(config["num_key_value_heads"] ?? heads) };
}

function tokenizerMetadata(model: ExportedModel): ReadonlyMap<string, GgufValue> {
  const { tokenizer, tokenizerConfig, config } = model;
  if (!tokenizer) return new Map<string, GgufValue>();
  const vocabSize = Number(config["vocab_size"]);
  return tokenizerToGguf({ tokenizer, vocabSize, ...(tokenizerConfig && { config: tokenizerConfig }) }); // prettier-ignore
}
