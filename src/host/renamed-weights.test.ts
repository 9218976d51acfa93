import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { WeightSource } from "../backends/backend.ts";
import { tensor } from "../tensor/tensor.ts";
import { fixture } from "../../test/support/fixtures.ts";
import { serializeSafetensors } from "../formats/safetensors-write.ts";
import { openFolder } from "./open-checkpoint.ts";
import { renamedWeights } from "./renamed-weights.ts";

const weight = tensor("f32", [1], Float32Array.of(3));
const source: WeightSource = {
  names: ["a", "b"],
  get: (name) => {
    if (name !== "a" && name !== "b") throw new Error(`no ${name}`);
    return { ...weight, bytes: { kind: "memory", tensor: weight } };
  },
  read: (name) =>
    name === "a" ? Promise.resolve(weight) : Promise.reject(new Error(`no ${name}`)),
};

it("gives weights under their new names, and refuses unknown ones as the source does", async () => {
  const renamed = renamedWeights(source, (name) => (name === "a" ? "model.a" : name));
  expect(renamed.names).toEqual(["model.a", "b"]);
  expect(await renamed.read("model.a")).toBe(weight);
  expect(renamed.get("b").shape).toEqual([1]);
  expect(() => renamed.get("c")).toThrow("no c");
});

it("opens a GPT-2 that was saved without its head, as gpt2 on the hub is", async () => {
  const { weights, config } = await fixture("gpt2");
  const folder = await mkdtemp(join(tmpdir(), "lorikeet-"));
  try {
    const headless = [...weights].map(
      ([name, value]) => [name.replace("transformer.", ""), value] as const,
    );
    await writeFile(join(folder, "config.json"), JSON.stringify(config));
    await writeFile(join(folder, "model.safetensors"), serializeSafetensors(new Map(headless)));
    const opened = await openFolder(folder);
    expect(new Set(opened.weights.names)).toEqual(new Set(weights.keys()));
    const read = await opened.weights.read("transformer.wte.weight");
    expect(read).toEqual(weights.get("transformer.wte.weight"));
  } finally {
    await rm(folder, { recursive: true });
  }
});
