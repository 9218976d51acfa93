import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { loadAdapterFolder } from "../src/host/adapter-files.ts";
import { mergedCheckpoint } from "../src/host/merged-checkpoint.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { interopBase, tensorsOf } from "./interop/peft-cases.ts";

const fixtures = join(import.meta.dirname, "fixtures/adapters");

async function opened(name: string) {
  const folder = join(fixtures, name);
  const expected = await tensorsOf(join(folder, "expected.safetensors"));
  const { base } = JSON.parse(await readFile(join(folder, "case.json"), "utf8")) as { base: string }; // prettier-ignore
  const model = await interopBase(base, fixtures, expected);
  const adapter = await loadAdapterFolder(join(folder, "adapter"));
  const merged = () =>
    mergedCheckpoint(model.checkpoint, adapter, { layers: model.layers, head: "" }, { dtype: "f32" }); // prettier-ignore
  return { expected, model, adapter, merged };
}

function largestDifference(got: Tensor, want: Tensor): number {
  return Array.from(want.data, Number).reduce((most, value, i) => Math.max(most, Math.abs(Number(got.data[i]) - value)), 0); // prettier-ignore
}

it.each(["conv-1d", "conv-dora", "conv-grouped"])("%s gives PEFT's logits", async (name) => {
  const { expected, model, adapter } = await opened(name);
  const got = await model.logits(model.checkpoint, adapter);
  expect(largestDifference(got, expected.get("adapter_logits")!)).toBeLessThan(1e-5);
});

it.each(["conv-1d", "conv-dora"])("%s merges to PEFT's merged logits", async (name) => {
  const { expected, model, merged } = await opened(name);
  const got = await model.logits(await merged());
  expect(largestDifference(got, expected.get("merged_logits")!)).toBeLessThan(1e-5);
});

it("a convolution with groups is refused for what it is, not for its sizes", async () => {
  const { merged } = await opened("conv-grouped");
  await expect(merged()).rejects.toMatchObject({ code: "cannot-merge" });
});
