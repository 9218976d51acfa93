import { LorikeetError } from "../../errors.ts";
import { type RopeFactors, ropeParameters } from "./config-rope.ts";
import { getNumber, getString, type GgufMetadata } from "./metadata.ts";
import { asGgufArchitecture, type GgufArchitecture } from "./names.ts";
import type { GgufHeader } from "./read.ts";

/** A model's config.json. */
export type ModelConfig = Record<string, unknown>;

/** What the builders of each architecture read. */
interface Source {
  readonly header: GgufHeader;
  readonly architecture: GgufArchitecture;
  readonly rope: RopeFactors;
  /** A number of `<architecture>.<key>`. */
  readonly number: (key: string, fallback?: number) => number;
  readonly optional: (key: string) => number | undefined;
  readonly has: (tensor: string) => boolean;
}

const BUILDERS: Readonly<Record<GgufArchitecture, (source: Source) => ModelConfig>> = {
  llama: (source) => {
    const window = source.optional("attention.sliding_window");
    const bias = { mlp_bias: source.has("blk.0.ffn_up.bias") };
    const family =
      window === undefined
        ? named("llama", "LlamaForCausalLM")
        : named("mistral", "MistralForCausalLM");
    return {
      ...family,
      ...decoder(source),
      ...bias,
      ...(window === undefined ? {} : { sliding_window: window }),
    };
  },
  qwen2: (source) => ({
    ...named("qwen2", "Qwen2ForCausalLM"),
    ...decoder(source),
    use_sliding_window: false,
  }),
  qwen3: (source) => ({
    ...named("qwen3", "Qwen3ForCausalLM"),
    ...decoder(source),
    use_sliding_window: false,
  }),
  gemma: (source) => ({ ...named("gemma", "GemmaForCausalLM"), ...decoder(source), ...GELU }),
  gemma2: (source) => ({
    ...named("gemma2", "Gemma2ForCausalLM"),
    ...decoder(source),
    ...GELU,
    ...alternating(source, 2, 46),
    attn_logit_softcapping: source.number("attn_logit_softcapping", 50),
    final_logit_softcapping: source.number("final_logit_softcapping", 30),
  }),
  gemma3: (source) => ({
    ...named("gemma3_text", "Gemma3ForCausalLM"),
    ...decoder(source),
    ...GELU,
    ...alternating(source, 6, 62),
    attn_logit_softcapping: null,
    final_logit_softcapping: source.optional("final_logit_softcapping") ?? null,
    rope_parameters: {
      full_attention: { ...rope(source), rope_theta: source.number("rope.freq_base", 1e6) },
      sliding_attention: {
        rope_type: "default",
        rope_theta: source.number("rope.freq_base_swa", 1e4),
      },
    },
  }),
  phi3: (source) => {
    const config = decoder(source);
    const rotated = source.number("rope.dimension_count", config["head_dim"] as number);
    const context = source.number(
      "rope.scaling.original_context_length",
      source.number("context_length"),
    );
    return {
      ...named("phi3", "Phi3ForCausalLM"),
      ...config,
      rope_parameters: {
        ...rope(source),
        partial_rotary_factor: rotated / (config["head_dim"] as number),
      },
      original_max_position_embeddings: context,
      sliding_window: source.optional("attention.sliding_window") ?? null,
    };
  },
  gpt2: (source) => ({
    ...named("gpt2", "GPT2LMHeadModel"),
    n_positions: source.number("context_length"),
    n_ctx: source.number("context_length"),
    n_embd: source.number("embedding_length"),
    n_layer: source.number("block_count"),
    n_head: source.number("attention.head_count"),
    n_inner: source.number("feed_forward_length"),
    layer_norm_epsilon: source.number("attention.layer_norm_epsilon", 1e-5),
    activation_function: "gelu_new",
  }),
};

const GELU = { hidden_act: "gelu_pytorch_tanh", hidden_activation: "gelu_pytorch_tanh" };

/**
 * The config.json that the metadata of a GGUF file stands for, spelled as transformers 5 does. `rope` gives the
 * values of the rotary tensors that the file holds.
 * @throws LorikeetError `unsupported-architecture`, `unsupported-gguf`, `corrupt-gguf` when a key is missing
 */
export function configFromGguf(header: GgufHeader, rope: RopeFactors = {}): ModelConfig {
  const { metadata, tensors } = header;
  const architecture = asGgufArchitecture(getString(metadata, "general.architecture"));
  const names = new Set(tensors.map(({ name }) => name));
  const optional = (key: string): number | undefined => {
    const value = getNumber(metadata, `${architecture}.${key}`);
    return value === undefined ? undefined : tidy(value);
  };
  const source: Source = {
    header,
    architecture,
    rope,
    optional,
    number: (key, fallback) => optional(key) ?? fallback ?? missing(`${architecture}.${key}`),
    has: (tensor) => names.has(tensor),
  };
  return {
    ...BUILDERS[architecture](source),
    vocab_size: vocabularySize(source),
    tie_word_embeddings: !names.has("output.weight"),
    ...specialIds(metadata),
    dtype: storedDtype(header),
  };
}

function named(modelType: string, className: string): ModelConfig {
  return { architectures: [className], model_type: modelType };
}

/** What all families but GPT-2 have. */
function decoder(source: Source): ModelConfig {
  const hidden = source.number("embedding_length");
  const heads = source.number("attention.head_count");
  const defaultDim = source.optional("rope.dimension_count") ?? hidden / heads;
  const isPartial = source.architecture === "phi3";
  return {
    hidden_size: hidden,
    intermediate_size: source.number("feed_forward_length"),
    num_hidden_layers: source.number("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: source.number("attention.head_count_kv", heads),
    head_dim: source.optional("attention.key_length") ?? (isPartial ? hidden / heads : defaultDim),
    max_position_embeddings: source.number("context_length"),
    rms_norm_eps: source.number("attention.layer_norm_rms_epsilon"),
    hidden_act: "silu",
    attention_bias: source.has("blk.0.attn_q.bias"),
    rope_parameters: rope(source),
  };
}

function rope({ header, architecture, rope: factors }: Source): Record<string, unknown> {
  return ropeParameters(header.metadata, architecture, factors);
}

/**
 * Every `period`-th layer of Gemma attends to everything, the others to a window. The scale of the scores is not
 * in the file: llama.cpp tells the one size (`oddLayers` deep) that differs by its depth.
 */
function alternating(source: Source, period: number, oddLayers: number): ModelConfig {
  const { hidden_size, num_attention_heads, num_hidden_layers, head_dim } = decoder(source) as Record<string, number>; // prettier-ignore
  const isOdd = num_hidden_layers === oddLayers;
  return {
    sliding_window: source.number("attention.sliding_window"),
    layer_types: Array.from({ length: num_hidden_layers! }, (_, i) =>
      (i + 1) % period === 0 ? "full_attention" : "sliding_attention",
    ),
    query_pre_attn_scalar: isOdd ? hidden_size! / num_attention_heads! : head_dim,
  };
}

function vocabularySize({ header, number }: Source): number {
  const embedding = header.tensors.find(({ name }) => name === "token_embd.weight");
  return embedding?.shape[0] ?? number("vocab_size");
}

function specialIds(metadata: GgufMetadata): ModelConfig {
  const names = { bos_token_id: "bos", eos_token_id: "eos", pad_token_id: "padding" };
  const ids = Object.entries(names).map(([field, name]) => [
    field,
    getNumber(metadata, `tokenizer.ggml.${name}_token_id`) ?? null,
  ]);
  return Object.fromEntries(ids) as ModelConfig;
}

/** The dtype that most of the file's values keep when read: quantized ones become f32. */
function storedDtype({ tensors }: GgufHeader): string {
  const type = tensors.find(({ name }) => name === "token_embd.weight")?.type;
  return type === "F16" ? "float16" : type === "BF16" ? "bfloat16" : "float32";
}

/** Metadata floats are f32: 9.999999747378752e-6 was written as 1e-5. */
function tidy(value: number): number {
  return Number.isInteger(value) ? value : Number(value.toPrecision(7));
}

function missing(key: string): never {
  throw new LorikeetError("corrupt-gguf", `Expected GGUF metadata "${key}", it is missing`, {
    hint: "The file was written by an old or broken converter. Convert the model again.",
  });
}
