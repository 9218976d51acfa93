import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { LorikeetError } from "../../errors.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import { configFromGguf, type ModelConfig } from "./config.ts";
import { configToGguf } from "./config-write.ts";
import type { GgufMetadata } from "./metadata.ts";
import type { GgufHeader } from "./read.ts";

function fixture(name: string): ModelConfig {
  const url = new URL(`../../../test/fixtures/models/${name}/config.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8")) as ModelConfig;
}

function header(metadata: GgufMetadata, tensors: Record<string, number[]> = {}): GgufHeader {
  const entries = Object.entries(tensors);
  return {
    version: 3,
    metadata,
    tensors: entries.map(([name, shape]) => {
      return { name, type: "F16", shape, offset: 0, length: 0 };
    }),
  };
}

/** The config that comes back after `config` was written as GGUF metadata. */
function there(config: ModelConfig, tensors: Record<string, number[]> = {}): ModelConfig {
  const { metadata, extraTensors } = configToGguf(config, { type: "F16" });
  const values = (name: string): Float32Array | undefined => {
    const found = extraTensors.get(name);
    return found && toFloat32(found);
  };
  const frequencies = values("rope_freqs.weight");
  const long = values("rope_factors_long.weight");
  const short = values("rope_factors_short.weight");
  return configFromGguf(header(metadata, tensors), {
    ...(frequencies && { frequencies }),
    ...(long && { long }),
    ...(short && { short }),
  });
}

/** Fields that GGUF says nothing of. */
const UNKNOWN = /^(transformers_version|use_cache|initializer_range|pretraining_tp|max_window_layers|attention_dropout|dtype|bos_token_id|eos_token_id|pad_token_id|use_bidirectional_attention|_sliding_window_pattern|.*(_pdrop|_dropout)|summary_.*|scale_attn.*|reorder.*|add_cross.*|layer_types|hidden_act)$/; // prettier-ignore

describe("a config comes back from the metadata it was written as", () => {
  test.each(["llama", "llama-rope3", "smollm2", "mistral", "qwen2", "qwen3", "gemma", "gpt2", "phi3", "phi3-longrope"])(
    "%s",
    (name) => {
      const config = fixture(name);
      const tensors: Record<string, number[]> = { "token_embd.weight": [128, 32] };
      if (config["tie_word_embeddings"] === false) tensors["output.weight"] = [128, 32];
      if (config["attention_bias"] === true) tensors["blk.0.attn_q.bias"] = [64];
      if (config["mlp_bias"] === true) tensors["blk.0.ffn_up.bias"] = [64];
      const back = there(config, tensors);
      for (const [key, value] of Object.entries(config))
        if (!UNKNOWN.test(key) && key !== "rope_parameters" && !(key === "n_inner" && value === null))
          expect(back[key] ?? null, key).toEqual(value);
      const rope = (config["rope_parameters"] ?? {}) as ModelConfig;
      const backRope = (back["rope_parameters"] ?? {}) as ModelConfig;
      for (const [key, value] of Object.entries(rope)) {
        const got = backRope[key];
        if (Array.isArray(value))
          (got as number[]).forEach((x, i) => expect(x).toBeCloseTo(value[i] as number, 6));
        else expect(got, key).toEqual(value);
      }
    },
  ); // prettier-ignore
});

test("gemma 2 and 3 state windows, layer types, soft caps and both rotary bases", () => {
  const gemma2 = { ...fixture("gemma2"), query_pre_attn_scalar: 16 };
  expect(there(gemma2)).toMatchObject({
    model_type: "gemma2",
    sliding_window: 5,
    layer_types: ["sliding_attention", "full_attention", "sliding_attention"],
    attn_logit_softcapping: 3,
    final_logit_softcapping: 2.5,
    query_pre_attn_scalar: 16,
    head_dim: 16,
    tie_word_embeddings: true,
  });
  const layerTypes = Array<string>(3).fill("sliding_attention");
  const gemma3 = { ...fixture("gemma3_text"), query_pre_attn_scalar: 16, layer_types: layerTypes };
  expect(there(gemma3)).toMatchObject({
    model_type: "gemma3_text",
    layer_types: layerTypes,
    rope_parameters: {
      full_attention: { rope_type: "linear", rope_theta: 1e6, factor: 8 },
      sliding_attention: { rope_type: "default", rope_theta: 1e4 },
    },
  });
});

test("the old spelling of rope is written alike", () => {
  const url = new URL("../../../test/fixtures/models/llama-rope3/config.old.json", import.meta.url);
  const old = JSON.parse(readFileSync(url, "utf8")) as ModelConfig;
  expect(there(old)["rope_parameters"]).toEqual(there(fixture("llama-rope3"))["rope_parameters"]);
  const yarn = {
    ...old,
    rope_scaling: { type: "yarn", factor: 4, original_max_position_embeddings: 16 },
  };
  expect(there(yarn)["rope_parameters"]).toEqual({
    rope_type: "yarn",
    rope_theta: 500000,
    factor: 4,
    original_max_position_embeddings: 16,
  });
  const scaled = (more: object): ModelConfig => ({ ...old, rope_scaling: { ...yarn.rope_scaling, ...more } }); // prettier-ignore
  const turns = { beta_fast: 8, beta_slow: 2 };
  expect(there(scaled(turns))["rope_parameters"]).toMatchObject(turns);
  for (const unknown of [{ attention_factor: 0.9 }, { mscale: 1 }, { truncate: false }])
    expect(() => there(scaled(unknown))).toThrow(/no place for yarn's (attention|mscale|truncate)/);
});

test("numbers that were rounded to f32 are told as they were written", () => {
  for (const [name, key, field] of [
    ["gpt2", "gpt2.attention.layer_norm_epsilon", "layer_norm_epsilon"],
    ["llama", "llama.attention.layer_norm_rms_epsilon", "rms_norm_eps"],
  ] as const) {
    const { metadata } = configToGguf(fixture(name), { type: "F32" });
    const rounded = new Map([
      ...metadata,
      [key, { type: "f32", value: Math.fround(1e-5) }] as const,
    ]);
    expect(configFromGguf(header(rounded))[field]).toBe(1e-5);
  }
});

test("sizes come from the embedding, the dtype from its type, the head from its presence", () => {
  const { metadata } = configToGguf(fixture("llama"), { type: "F16", name: "tiny" });
  expect(metadata.get("general.name")?.value).toBe("tiny");
  const config = configFromGguf(
    header(metadata, { "token_embd.weight": [130, 32], "output.weight": [130, 32] }),
  );
  expect(config).toMatchObject({ vocab_size: 130, dtype: "float16", tie_word_embeddings: false });
});

test.each<[string, ModelConfig, string, RegExp]>([
  ["bert", { model_type: "bert" }, "unsupported-architecture", /got "bert"/],
  ["sliding Qwen", fixture("qwen2-window"), "unsupported-gguf", /use_sliding_window/],
  ["another scale of scores", fixture("gemma2"), "unsupported-gguf", /query_pre_attn_scalar 24/],
  ["other layer types", fixture("gemma3_text"), "unsupported-gguf", /these layer_types/],
  ["dynamic rope", { ...fixture("llama"), rope_parameters: { rope_type: "dynamic" } }, "unsupported-gguf", /rope_type "dynamic"/],
  ["a config without sizes", { model_type: "llama" }, "model-config", /num_attention_heads/],
])("%s is refused when written", (_, config, code, message) => {
  expect(() => configToGguf(config, { type: "F32" })).toThrow(message);
  try {
    configToGguf(config, { type: "F32" });
  } catch (error) {
    expect((error as LorikeetError).code).toBe(code);
  }
}); // prettier-ignore

describe("a file that cannot be understood is refused", () => {
  const { metadata } = configToGguf(fixture("llama"), { type: "F32" });
  const changed = (
    key: string,
    value?: GgufMetadata extends ReadonlyMap<string, infer V> ? V : never,
  ): GgufHeader => {
    const copy = new Map(metadata);
    if (value === undefined) copy.delete(key);
    else copy.set(key, value);
    return header(copy);
  };
  test.each([
    ["no architecture", changed("general.architecture"), /got none/],
    [
      "another architecture",
      changed("general.architecture", { type: "string", value: "mamba" }),
      /got "mamba"/,
    ],
    ["a missing key", changed("llama.block_count"), /"llama.block_count", it is missing/],
    [
      "a key of another type",
      changed("llama.block_count", { type: "string", value: "3" }),
      /to be a number, got string/,
    ],
    [
      "unknown scaling",
      changed("llama.rope.scaling.type", { type: "string", value: "odd" }),
      /got "odd"/,
    ],
  ])("%s", (_, file, message) => {
    expect(() => configFromGguf(file)).toThrow(message);
    expect(() => configFromGguf(file)).toThrow(LorikeetError);
  });

  test("rotary factors of no known formula", () => {
    const frequencies = Float32Array.of(1, 3, 2, 8);
    expect(() => configFromGguf(header(metadata), { frequencies })).toThrow(/Llama 3's formula/);
  });
});
