import { createHash } from "node:crypto";
import { copyFile, mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { Adapter } from "../src/adapter/adapter.ts";
import { topSingular } from "../src/adapter/linear-algebra.ts";
import { initialAdapter } from "../src/adapter/initial-adapter.ts";
import { lora, type LoraConfig } from "../src/adapter/lora-config.ts";
import { lossFeeds } from "../src/api/feeds.ts";
import { loadModel } from "../src/api/load-model.ts";
import { merge } from "../src/api/merge.ts";
import type { Model } from "../src/api/model.ts";
import { rootsOf, topological } from "../src/ir/graph.ts";
import { isFrozen, isTrainable } from "../src/ops/leaf.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import { trainingGraph } from "../src/train/plan.ts";
import { lorikeet } from "./support/command.ts";
import { trainSteps } from "./support/train-steps.ts";

const fixtures = join(import.meta.dirname, "fixtures/models");
const rows = [0, 1, 2].map((b) => Array.from({ length: 11 }, (_, t) => (17 * b + 7 * t + 3) % 128));
let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "lorikeet-laws-"));
});

const open = (name: string, device = "cpu"): Promise<Model> =>
  loadModel(join(fixtures, name), { threads: 1, device });

async function logitsOf(model: Model): Promise<Float32Array> {
  const { data } = await model.logits(rows);
  await model.dispose();
  return data as Float32Array;
}

function fresh(model: Model, config: Partial<LoraConfig>): Promise<Adapter> {
  return initialAdapter(lora({ r: 4, ...config }), model.base, { seed: 5 });
}

/** `start` after a few steps at a rate that moves everything. */
async function trained(base: Model, start: Adapter, steps = 4): Promise<Adapter> {
  const model = base.withAdapter(start);
  return (await trainSteps(model, start, lossFeeds(rows, rows), steps)).adapter;
}

function largest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i]! - b[i]!));
  return most;
}

describe("before the first step the adapted model is the base", () => {
  it.each([
    { targetModules: "all-linear" },
    { targetModules: "all-linear", init: "gaussian", useRslora: true },
    { targetModules: ["q_proj", "embed_tokens"] },
    { targetModules: ["q_proj", "lm_head"], loraBias: true },
    { targetModules: ["q_proj"], bias: "all", modulesToSave: ["norm"] },
    { targetModules: ["q_proj"], trainableTokenIndices: { embed_tokens: [1, 5] } },
    { targetModules: [], targetParameters: ["q_proj.weight", "down_proj.weight"] },
    { targetModules: "all-linear", rankPattern: { q_proj: 1 }, layersToTransform: [1] },
  ] as Partial<LoraConfig>[])("bit for bit: %o", async (config) => {
    for (const [name, device] of [
      ["llama", "cpu"],
      ["llama-rope3", "cpu"], // biases in every layer
      ["llama-rope3", "reference"],
    ] as const) {
      const base = await open(name, device);
      const model = base.withAdapter(await fresh(base, config));
      expect(await logitsOf(model), device).toEqual(await logitsOf(base));
    }
  });

  it.each([
    [{ useDora: true }, 1e-5],
    [{ init: "orthogonal" }, 1e-5],
    [{ init: "pissa" }, 1e-4],
    [{ init: "pissa_niter_2" }, 1e-4],
    [{ init: "olora" }, 1e-4],
    [{ init: "pissa", useDora: true }, 1e-4],
  ] as [Partial<LoraConfig>, number][])("%o: logits within %d", async (config, bound) => {
    const base = await open("llama");
    const model = base.withAdapter(await fresh(base, { targetModules: "all-linear", ...config }));
    expect(largest(await logitsOf(model), await logitsOf(base))).toBeLessThan(bound);
  });

  it("LoftQ: closer to the base than its quantized weights alone", async () => {
    const base = await open("llama");
    const start = await fresh(base, { targetModules: "all-linear", init: "loftq", alpha: 4 });
    const without = { ...start, tensors: new Map([...start.tensors].map(([key, value]) => [key, { ...value, data: value.data.map(() => 0 as never) }] as const)) }; // prettier-ignore
    const plain = await logitsOf(base);
    const distance = async (adapter: Adapter): Promise<number> =>
      Math.hypot(...(await logitsOf(base.withAdapter(adapter))).map((x, i) => x - plain[i]!));
    expect(await distance(start)).toBeLessThan(0.9 * (await distance(without)));
  });
});

it("training leaves the base's file as it was, byte by byte", async () => {
  const folder = await mkdtemp(join(scratch, "base-"));
  const files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
  const source = join(import.meta.dirname, "../models/storyteller-6m");
  for (const file of files) await copyFile(join(source, file), join(folder, file));
  const hash = async (): Promise<string[]> =>
    Promise.all(files.map(async (file) => createHash("sha256").update(await readFile(join(folder, file))).digest("hex"))); // prettier-ignore
  const before = await hash();
  const flags = ["--init-lora-weights", "olora", "--bias", "all", "--max-steps", "2", "--r", "4", "--no-report", "--threads", "1"]; // prettier-ignore
  const run = await lorikeet("train", "--model", folder, "--data", "examples/lorikeet-chat.heldout.jsonl", "-o", join(scratch, "run"), ...flags); // prettier-ignore
  expect(run.code).toBe(0);
  expect(await hash()).toEqual(before);
}, 120_000);

it("a trained change of a weight has at most the rank that was asked for", async () => {
  const base = await open("llama");
  for (const init of [true, "pissa"] as const) {
    const adapter = await trained(base, await fresh(base, { targetModules: ["down_proj"], r: 3, init })); // prettier-ignore
    const folder = await mkdtemp(join(scratch, "merged-"));
    await merge(base, adapter, folder, { dtype: "f32", overwrite: true });
    const merged = await loadModel(folder);
    const name = "model.layers.1.mlp.down_proj.weight";
    const [w, v] = await Promise.all([base, merged].map((model) => model.weights.read(name)));
    const [out, ins] = w!.shape as [number, number];
    const after = toFloat64(v!);
    const data = toFloat64(w!).map((x, i) => after[i]! - x);
    const { s } = topSingular({ rows: out, columns: ins, data }, 8);
    const rank = init === "pissa" ? 6 : 3;
    expect(s[rank - 1]! / s[0]!).toBeGreaterThan(1e-4);
    expect(s[rank]! / s[0]!, String(init)).toBeLessThan(1e-5);
  }
});

it("the backward pass has no gradient of a frozen weight, and none of a held one", async () => {
  const base = await open("llama");
  const { plan } = base.withAdapter(await fresh(base, { targetModules: "all-linear" }));
  const shape = { batch: 3, length: 7, rows: 20, hasSegments: false };
  const graph = trainingGraph(plan, shape);
  const nodes = topological(rootsOf(graph));
  const frozen = nodes.filter(isFrozen);
  expect(frozen.length).toBeGreaterThan(20);
  expect(Object.keys(graph.gradients).sort()).toEqual(nodes.filter(isTrainable).map(({ name }) => name!).sort()); // prettier-ignore
  const forward = new Set(topological(Object.values(graph.outputs)));
  const shapes = new Set(frozen.filter((node) => node.shape.length === 2).map((node) => node.shape.join())); // prettier-ignore
  const backward = nodes.filter((node) => !forward.has(node));
  expect(backward.length).toBeGreaterThan(100);
  expect(backward.filter((node) => shapes.has(node.shape.join()))).toEqual([]);
  const held = trainingGraph({ ...plan, isHeld: (name) => name.includes("lora_A") }, shape);
  expect(Object.keys(held.gradients).some((name) => name.includes("lora_A"))).toBe(false);
  expect(topological(rootsOf(held)).length).toBeLessThan(nodes.length);
});

describe("a merged model computes what the adapted one does", () => {
  it.each([
    ["llama", 1e-5],
    ["llama-f16", 4e-3],
    ["llama-bf16", 2e-2],
  ] as const)("%s: relative to %d", async (name, bound) => {
    const base = await open(name);
    for (const config of [{}, { useDora: true }, { init: "olora" }] as Partial<LoraConfig>[]) {
      const start = await fresh(base, { targetModules: "all-linear", ...config });
      const adapter = await trained(base, start);
      const folder = await mkdtemp(join(scratch, "merged-"));
      await merge(base, adapter, folder, { overwrite: true });
      const want = await logitsOf(base.withAdapter(adapter));
      const got = await logitsOf(await loadModel(folder));
      const error = Math.hypot(...want.map((x, i) => x - got[i]!)) / Math.hypot(...want);
      expect(error, JSON.stringify(config)).toBeLessThan(bound);
    }
  });
});
