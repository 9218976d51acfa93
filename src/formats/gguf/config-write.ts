import type { Tensor } from "../../tensor/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { writeRope } from "./config-rope-write.ts";
import { cannotHold, type ConfigTarget, headDimOf, numberOf } from "./config-target.ts";
import type { GgufMetadata, GgufValue } from "./metadata.ts";
import { type GgufArchitecture, ggufArchitectureOf } from "./names.ts";
import type { WritableType } from "./quantize.ts";

/** The metadata that describes a model, and the rotary tensors that belong to it. */
export interface GgufModelDescription {
  readonly architecture: GgufArchitecture;
  readonly metadata: GgufMetadata;
  readonly extraTensors: ReadonlyMap<string, Tensor>;
}

/** llama.cpp's numbers for the type that most tensors of a file have. */
const FILE_TYPES: Readonly<Record<WritableType, number>> = { F32: 0, F16: 1, Q8_0: 7, BF16: 32 };

/**
 * GGUF metadata for the model of a config.json (old or new spelling); tokenizer keys are not included.
 * @throws LorikeetError `unsupported-architecture`; `unsupported-gguf` when llama.cpp would run another model than
 * the config describes
 */
export function configToGguf(
  config: ModelConfig,
  { type, name = "model" }: { type: WritableType; name?: string },
): GgufModelDescription {
  const architecture = ggufArchitectureOf(String(config["model_type"]));
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", { type: "string", value: architecture }],
    ["general.type", { type: "string", value: "model" }],
    ["general.name", { type: "string", value: name }],
    ["general.file_type", { type: "u32", value: FILE_TYPES[type] }],
    ["general.quantization_version", { type: "u32", value: 2 }],
  ]);
  const extraTensors = new Map<string, Tensor>();
  const target: ConfigTarget = {
    config,
    extraTensors,
    set: (key, kind, value) => metadata.set(`${architecture}.${key}`, { type: kind, value }),
  };
  if (architecture === "gpt2") writeGpt2(target);
  else {
    writeDecoder(target);
    writeRope(target, architecture);
    if (architecture === "gemma2" || architecture === "gemma3")
      writeAlternating(target, architecture);
    else writeWindow(target, architecture);
  }
  return { architecture, metadata, extraTensors };
}

function writeGpt2({ config, set }: ConfigTarget): void {
  const width = numberOf(config, "n_embd");
  set("vocab_size", "u32", numberOf(config, "vocab_size"));
  set("context_length", "u32", numberOf(config, "n_positions", config["n_ctx"]));
  set("embedding_length", "u32", width);
  set("feed_forward_length", "u32", numberOf(config, "n_inner", 4 * width));
  set("block_count", "u32", numberOf(config, "n_layer"));
  set("attention.head_count", "u32", numberOf(config, "n_head"));
  set("attention.layer_norm_epsilon", "f32", numberOf(config, "layer_norm_epsilon", 1e-5));
}

function writeDecoder({ config, set }: ConfigTarget): void {
  const heads = numberOf(config, "num_attention_heads");
  const headDim = headDimOf(config);
  set("vocab_size", "u32", numberOf(config, "vocab_size"));
  set("context_length", "u32", numberOf(config, "max_position_embeddings"));
  set("embedding_length", "u32", numberOf(config, "hidden_size"));
  set("block_count", "u32", numberOf(config, "num_hidden_layers"));
  set("feed_forward_length", "u32", numberOf(config, "intermediate_size"));
  set("attention.head_count", "u32", heads);
  set("attention.head_count_kv", "u32", numberOf(config, "num_key_value_heads", heads));
  set("attention.key_length", "u32", headDim);
  set("attention.value_length", "u32", headDim);
  set("attention.layer_norm_rms_epsilon", "f32", numberOf(config, "rms_norm_eps", 1e-6));
}

function writeWindow({ config, set }: ConfigTarget, architecture: GgufArchitecture): void {
  const window = config["sliding_window"];
  if (architecture === "qwen2" || architecture === "qwen3") {
    if (config["use_sliding_window"] === true) throw cannotHold("use_sliding_window");
    return;
  }
  if (typeof window === "number") set("attention.sliding_window", "u32", window);
}

function writeAlternating({ config, set }: ConfigTarget, architecture: "gemma2" | "gemma3"): void {
  set("attention.sliding_window", "u32", numberOf(config, "sliding_window"));
  for (const name of ["attn_logit_softcapping", "final_logit_softcapping"])
    if (typeof config[name] === "number") set(name, "f32", config[name]);
  const [period, oddLayers] = architecture === "gemma2" ? [2, 46] : [6, 62];
  const layers = numberOf(config, "num_hidden_layers");
  const types = config["layer_types"] as string[] | undefined;
  const isExpected = (type: string, i: number): boolean => (type === "full_attention") === ((i + 1) % period === 0); // prettier-ignore
  if (types && !types.every(isExpected)) throw cannotHold("these layer_types");
  const scale = layers === oddLayers ? numberOf(config, "hidden_size") / numberOf(config, "num_attention_heads") : headDimOf(config); // prettier-ignore
  if (numberOf(config, "query_pre_attn_scalar", scale) !== scale)
    throw cannotHold(`query_pre_attn_scalar ${String(config["query_pre_attn_scalar"])}`);
}
