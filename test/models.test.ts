import { describe, expect, it } from "vitest";
import { interpret } from "../src/backends/reference/interpret.ts";
import { verify } from "../src/ir/verify.ts";
import { causalLM } from "../src/models/registry.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import { binding, causalFixtures, type Fixture, fixture, positionsOf } from "./support/fixtures.ts";

/** Largest absolute difference between logits of the graph and transformers'. */
async function difference(name: string, file: string, prefix: string): Promise<number> {
  return differenceOf(await fixture(name, file), prefix);
}

function differenceOf(checkpoint: Fixture, prefix: string): number {
  const { config, expected } = checkpoint;
  const ids = expected.get(`${prefix}input_ids`)!;
  const [batch, length] = ids.shape as [number, number];
  const model = causalLM(config, { batch, length });
  const logits = model.head(model.hidden);
  verify([logits]);
  const feeds = { input_ids: ids, position_ids: positionsOf(batch, length) };
  const [got] = interpret([logits], binding(feeds, checkpoint));
  const want = toFloat64(expected.get(`${prefix}logits`)!);
  const mask = expected.get(`${prefix}attention_mask`);
  const V = logits.shape[1]!;
  let largest = 0;
  want.forEach((value, i) => {
    if (!mask || Number(mask.data[Math.floor(i / V)]) === 1)
      largest = Math.max(largest, Math.abs(value - got!.data[i]!));
  });
  expect(got!.data).toHaveLength(want.length);
  return largest;
}

describe.each(causalFixtures)("%s: logits of transformers, float32", (name) => {
  it("to 1e-4", async () => {
    expect(await difference(name, "config.json", "")).toBeLessThan(1e-4);
  });

  it("to 1e-4 where a row is padded on the right", async () => {
    expect(await difference(name, "config.json", "padded.")).toBeLessThan(1e-4);
  });
});

it.each(["llama", "llama-rope3"])(
  "%s: reads the configuration in its old spelling",
  async (name) => {
    expect(await difference(name, "config.old.json", "")).toBeLessThan(1e-4);
  },
);

// how transformers 4 wrote what these families say in `rope_parameters`
it.each([
  [
    "gemma3_text",
    {
      rope_theta: 1e6,
      rope_local_base_freq: 1e4,
      rope_scaling: { rope_type: "linear", factor: 8 },
    },
  ],
  ["gpt_neox", { rotary_pct: 0.25, rotary_emb_base: 10000 }],
  ["gpt_neox-serial", { rotary_pct: 0.5, rotary_emb_base: 10000 }],
  ["phi3", { rope_theta: 10000, partial_rotary_factor: 0.5 }],
] as const)("%s: reads the rotary fields of transformers 4", async (name, fields) => {
  const checkpoint = await fixture(name);
  const { rope_parameters: _, layer_types: _types, ...rest } = checkpoint.config;
  const config = { ...rest, ...fields, sliding_window_pattern: 2 };
  expect(differenceOf({ ...checkpoint, config }, "")).toBeLessThan(1e-4);
});

it("phi3: reads the first spelling of longrope", async () => {
  const checkpoint = await fixture("phi3-longrope");
  const { rope_parameters, ...rest } = checkpoint.config;
  const { short_factor, long_factor } = rope_parameters as Record<string, unknown>;
  const rope_scaling = { type: "su", short_factor, long_factor };
  const config = { ...rest, rope_theta: 10000, rope_scaling };
  expect(differenceOf({ ...checkpoint, config }, "")).toBeLessThan(1e-4);
});

it("names what is supported when a family is unknown", () => {
  expect(() => causalLM({ model_type: "lama" }, { batch: 1, length: 1 })).toThrow(
    /llama, mistral.*got lama/,
  );
});

it("refuses more tokens than there are learned positions", async () => {
  const { config } = await fixture("gpt2");
  expect(() => causalLM(config, { batch: 1, length: 41 })).toThrow(/at most 40 tokens.*got 41/);
});
