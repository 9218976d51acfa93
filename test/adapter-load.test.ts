import { join } from "node:path";
import { expect, it } from "vitest";
import type { Adapter } from "../src/adapter/adapter.ts";
import { initialAdapter } from "../src/adapter/initial-adapter.ts";
import { lora, type LoraConfig } from "../src/adapter/lora-config.ts";
import { loadModel } from "../src/api/load-model.ts";
import type { Model } from "../src/api/model.ts";
import { tensor } from "../src/tensor/tensor.ts";

const open = (name: string): Promise<Model> =>
  loadModel(join(import.meta.dirname, "fixtures/models", name));

async function fresh(model: Model, config: Partial<LoraConfig>): Promise<Adapter> {
  return initialAdapter(lora({ targetModules: ["q_proj"], ...config }), model.base, { seed: 1 });
}

function messageOf(load: () => unknown): string {
  try {
    load();
  } catch (error) {
    expect(error).toMatchObject({ code: "adapter-mismatch" });
    return (error as Error).message;
  }
  throw new Error("Expected an error, got none");
}

const key = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight";

it("a renamed key is named as unexpected and as missing, each with the other as nearest", async () => {
  const model = await open("llama");
  const { config, tensors } = await fresh(model, {});
  const renamed = new Map([...tensors].map(([name, value]) => [name.replace("layers.1.self_attn.q_proj.lora_A", "layers.1.self_atn.q_proj.lora_A"), value] as const)); // prettier-ignore
  const message = messageOf(() => model.withAdapter({ config, tensors: renamed }));
  expect(message).toContain(`"${key}" [8, 32] is missing; near is "${key.replace("attn", "atn")}"`);
  expect(message).toContain(`"${key.replace("attn", "atn")}" belongs to no layer of this model; near is "${key}"`); // prettier-ignore
});

it("every tensor of another shape is listed with both shapes", async () => {
  const model = await open("llama");
  const { config, tensors } = await fresh(model, {});
  const cut = new Map(tensors).set(key, tensor("f32", [8, 16]));
  expect(messageOf(() => model.withAdapter({ config, tensors: cut }))).toContain(
    `"${key}" is [8, 16], this model needs [8, 32]`,
  );
});

it.each([
  [{ modulesToSave: ["embed_tokens"] }, "base_model.model.model.embed_tokens.weight", [131, 32]],
  [{ modulesToSave: ["lm_head"] }, "base_model.model.lm_head.weight", [131, 32]],
  [
    { targetModules: ["embed_tokens"] },
    "base_model.model.model.embed_tokens.lora_embedding_A",
    [8, 131],
  ],
] as const)("a resized vocabulary is called that: %o", async (options, name, shape) => {
  const model = await open("llama-rope3");
  const { config, tensors } = await fresh(model, options);
  const larger = new Map(tensors).set(name, tensor("f32", shape));
  expect(messageOf(() => model.withAdapter({ config, tensors: larger }))).toContain(
    "the adapter was trained with a vocabulary of 131 tokens",
  );
});

it("an adapter of a model with ties does not pass for one of a model without", async () => {
  const [tied, untied] = [await open("llama"), await open("llama-rope3")];
  const adapter = await fresh(tied, { targetModules: ["embed_tokens"], ensureWeightTying: true });
  expect(tied.withAdapter(adapter).adapter).toBe(adapter);
  const message = messageOf(() => untied.withAdapter(adapter));
  expect(message).toContain('lm_head.lora_A.weight" belongs to no layer');
});
