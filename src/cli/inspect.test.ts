import { expect, test } from "vitest";
import type { AdapterInspection, ModelInspection } from "../api/inspection.ts";
import { lorikeet } from "../../test/support/command.ts";

const ADAPTER = "test/golden/patterns/adapter";

test("a model: parameters and the layers that LoRA can be attached to", async () => {
  const { code, out } = await lorikeet("inspect", "storyteller-6m", "--json");
  expect(code).toBe(0);
  const model = JSON.parse(out) as ModelInspection;
  expect(model).toMatchObject({ kind: "model", family: "llama", context: 1024, vocabulary: 6144 });
  expect(model.parameters).toBe(5_999_872);
  expect(model.layers).toContainEqual({
    module: "model.layers.*.self_attn.k_proj",
    count: 6,
    inFeatures: 256,
    outFeatures: 128,
  });
  expect((await lorikeet("inspect", "storyteller-6m")).out).toContain("5,999,872 parameters");
});

test("--weights lists every tensor", async () => {
  const { out } = await lorikeet("inspect", "storyteller-6m", "--weights");
  expect(out.trimEnd().split("\n")).toHaveLength(56);
  expect(out).toContain("model.norm.weight  bf16 [256]\n");
});

test("an adapter: ranks and scales of each kind of layer, and its fit to a base", async () => {
  const flags = ["inspect", ADAPTER, "--model", "storyteller-6m"];
  const { code, out } = await lorikeet(...flags, "--json");
  expect(code).toBe(0);
  const adapter = JSON.parse(out) as AdapterInspection;
  const modules = adapter.layers.reduce((sum, { count }) => sum + count, 0);
  expect(adapter).toMatchObject({ kind: "adapter", fit: { matched: modules, unmatched: [] } });
  expect(new Set(adapter.layers.flatMap(({ ranks }) => ranks)).size).toBeGreaterThan(1);
  expect((await lorikeet(...flags)).out).toContain(`${modules} of ${modules} modules match`);
});

test("nothing there is an error with a hint", async () => {
  const { code, err } = await lorikeet("inspect", "no-such-model");
  expect(code).toBe(1);
  expect(err).toContain("error[file-not-found]");
});
