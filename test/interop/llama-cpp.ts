/**
 * @file Compares Lorikeet with llama.cpp: GGUF files that Lorikeet wrote (base, adapter, merged model) must generate
 * the same tokens greedily there as in Lorikeet's own engine. Run by hand; prints a Markdown table.
 *
 *   mkdir /tmp/llama && npm install --prefix /tmp/llama node-llama-cpp
 *   node --import ./scripts/typescript.js test/interop/llama-cpp.ts /tmp/llama [MODEL ADAPTER [TYPES]]
 *
 * `random` as ADAPTER: one of rank 8 for all linear layers, with normal factors.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Adapter, peftKey } from "../../src/adapter/adapter.ts";
import { lora } from "../../src/adapter/lora-config.ts";
import { promptIds } from "../../src/api/answer-row.ts";
import { generate } from "../../src/api/generate.ts";
import { loadModel } from "../../src/api/load-model.ts";
import { exportGguf, mergeToGguf } from "../../src/api/merge.ts";
import type { Model } from "../../src/api/model.ts";
import type { WritableType } from "../../src/formats/gguf/quantize.ts";
import { loadAdapterFolder } from "../../src/host/adapter-files.ts";
import { saveGgufAdapter } from "../../src/host/adapter-formats.ts";
import { Random } from "../../src/tensor/random.ts";
import { tensor, type Tensor } from "../../src/tensor/tensor.ts";

const COUNT = 48;
const PROMPTS = [
  "Once upon a time, there was a little bird",
  "The old man walked to the river and",
];

/** What is used of node-llama-cpp. */
interface Llama {
  loadModel(options: { modelPath: string; gpuLayers: number }): Promise<LlamaModel>;
}
interface LlamaModel {
  tokenize(text: string): number[];
  createContext(options: Record<string, unknown>): Promise<LlamaContext>;
  dispose(): Promise<void>;
}
interface LlamaContext {
  getSequence(): {
    evaluate(tokens: number[], options: { temperature: number }): AsyncIterable<number>;
  };
  dispose(): Promise<void>;
}

const [
  home,
  reference = "storyteller-6m",
  adapterFolder = "test/golden/lora/adapter_after10",
  wanted = "F32,F16,BF16,Q8_0",
] = process.argv.slice(2);
if (home === undefined) throw new Error("Name the folder that node-llama-cpp is installed in.");
const entry = pathToFileURL(resolve(home, "node_modules/node-llama-cpp/dist/index.js")).href;
const { getLlama } = (await import(entry)) as {
  getLlama: (options: Record<string, unknown>) => Promise<Llama>;
};
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: 1 });

async function theirs(file: string, prompts: number[][], lora?: string): Promise<number[][]> {
  const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
  const out: number[][] = [];
  for (const ids of prompts) {
    const context = await model.createContext({
      contextSize: 256,
      batchSize: 64,
      threads: 1,
      flashAttention: false,
      ...(lora !== undefined && { lora: { adapters: [{ filePath: lora, scale: 1 }] } }),
    });
    const tokens: number[] = [];
    for await (const id of context.getSequence().evaluate(ids, { temperature: 0 })) {
      tokens.push(id);
      if (tokens.length === COUNT) break;
    }
    out.push(tokens);
    await context.dispose();
  }
  await model.dispose();
  return out;
}

async function ours(model: Model, prompts: readonly string[]): Promise<number[][]> {
  const out: number[][] = [];
  for (const prompt of prompts) {
    const tokens: number[] = [];
    for await (const { id } of generate(model, prompt, { maxNewTokens: COUNT })) tokens.push(id);
    out.push(tokens);
  }
  return out;
}

/** An adapter that changes what `model` says: A and B normal, B times 0.02. */
function randomAdapter(model: Model): Adapter {
  const config = lora({ r: 8, alpha: 16, targetModules: "all-linear" });
  const tensors = new Map<string, Tensor>();
  for (const { module, inFeatures, outFeatures } of model.layers) {
    if (!module.includes(".layers.")) continue;
    for (const [part, shape, size] of [
      ["lora_A.weight", [8, inFeatures], 1 / Math.sqrt(inFeatures)],
      ["lora_B.weight", [outFeatures, 8], 0.02],
    ] as const) {
      const random = new Random(1).fork(module + part);
      const values = Float32Array.from(
        { length: shape[0] * shape[1] },
        () => size * random.normal(),
      );
      tensors.set(peftKey(module, part), tensor("f32", shape, values));
    }
  }
  return { config, tensors };
}

/** Number of equal tokens at the start, of each prompt. */
function agreement(a: number[][], b: number[][]): string {
  return a
    .map((tokens, i) => {
      const limit = Math.min(tokens.length, b[i]!.length);
      const differs = tokens.findIndex((id, j) => j >= limit || id !== b[i]![j]);
      return `${differs < 0 ? limit : differs}/${limit}`;
    })
    .join(", ");
}

const scratch = await mkdtemp(join(tmpdir(), "lorikeet-llama-"));
try {
  const base = await loadModel(reference);
  const adapter =
    adapterFolder === "random" ? randomAdapter(base) : await loadAdapterFolder(adapterFolder);
  const adapted = base.withAdapter(adapter);
  const ids = PROMPTS.map((prompt) => promptIds(base, prompt));
  const rows: string[][] = [];
  const plain = await exportGguf(base, join(scratch, "base"), { type: "F32" });
  const baseFile = join(plain.path, plain.files[0]!);
  const loraFile = join(scratch, "adapter.gguf");
  await saveGgufAdapter(adapter, { config: base.checkpoint.config, layers: base.layers }, loraFile);
  const [want, wantAdapted] = [await ours(base, PROMPTS), await ours(adapted, PROMPTS)];
  rows.push(["adapter changes the text after", agreement(want, wantAdapted)]);
  process.stderr.write(`${rows.join()}\n`);
  rows.push(["base F32", agreement(await theirs(baseFile, ids), want)]);
  rows.push(["base F32 + adapter", agreement(await theirs(baseFile, ids, loraFile), wantAdapted)]);
  for (const type of wanted.split(",") as WritableType[]) {
    const merged = await mergeToGguf(base, adapter, join(scratch, type), { type });
    const file = join(merged.path, merged.files[0]!);
    // the same rounded weights in both engines
    const rounded = await ours(await loadModel(file), PROMPTS);
    process.stderr.write(`${rows.at(-1)!.join(": ")}\n`);
    rows.push([`merged ${type}`, agreement(await theirs(file, ids), rounded)]);
  }
  process.stdout.write(`| ${reference} | equal tokens of each prompt |\n| --- | --- |\n`);
  for (const row of rows) process.stdout.write(`| ${row.join(" | ")} |\n`);
} finally {
  await rm(scratch, { recursive: true });
}
