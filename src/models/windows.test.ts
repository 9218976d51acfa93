import { expect, test } from "vitest";
import { topological } from "../ir/graph.ts";
import { causalLM } from "./registry.ts";

const sizes = {
  hidden_size: 16,
  intermediate_size: 8,
  vocab_size: 8,
  num_attention_heads: 8,
  num_key_value_heads: 8,
  head_dim: 2,
  max_position_embeddings: 8192,
};

/** The window of each layer's attention. */
function windowsOf(config: object): unknown[] {
  const model = causalLM({ ...sizes, ...config }, { batch: 1, length: 2 });
  const attentions = topological([model.hidden]).filter(({ op }) => op.name === "attention");
  return attentions.map(({ attrs }) => (attrs as { window: number }).window);
}

test("fields that a configuration leaves out are what transformers takes them for", () => {
  const mistral = { model_type: "mistral", num_hidden_layers: 1 };
  expect(windowsOf(mistral)).toEqual([4096]);
  expect(windowsOf({ ...mistral, sliding_window: null })).toEqual([0]);
  const qwen = { model_type: "qwen2", num_hidden_layers: 30, use_sliding_window: true };
  expect(windowsOf(qwen)).toEqual(Array.from({ length: 30 }, (_, i) => (i < 28 ? 0 : 4096)));
  expect(windowsOf({ ...qwen, sliding_window: null })).toEqual(Array.from({ length: 30 }, () => 0));
  expect(windowsOf({ ...qwen, use_sliding_window: false, sliding_window: 3 })).not.toContain(3);
});
