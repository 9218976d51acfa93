import { existsSync } from "node:fs";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createModel } from "../src/api/model.ts";
import { loadModel } from "../src/api/load-model.ts";
import { exportOnnx, mergeToOnnx } from "../src/api/onnx-export.ts";
import { loadAdapterFolder } from "../src/host/adapter-files.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";
import { lorikeet } from "./support/command.ts";
import { causalFixtures } from "./support/fixtures.ts";

const models = join(import.meta.dirname, "fixtures/models");
let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "lorikeet-onnx-"));
});
afterAll(() => rm(scratch, { recursive: true }));

type Cache = Record<string, OrtTensor>;
interface Step {
  readonly logits: OrtTensor;
  readonly cache: Cache;
}

/** Runs as Transformers.js does: the first run with an empty cache, positions from the attention mask. */
async function step(
  session: InferenceSession,
  ids: readonly (readonly number[])[],
  mask: readonly (readonly number[])[],
  { cache, keep = 0 }: { cache?: Cache; keep?: number } = {},
): Promise<Step> {
  const [B, T] = [ids.length, ids[0]!.length];
  const positions = mask.map((row) =>
    row.map((_, i) => Math.max(0, row.slice(0, i + 1).reduce((a, b) => a + b, 0) - 1)).slice(-T),
  );
  const grid = (rows: readonly (readonly number[])[]): OrtTensor =>
    new OrtTensor("int64", BigInt64Array.from(rows.flat(), BigInt), [B, rows[0]!.length]);
  const feeds: Record<string, OrtTensor> = {
    input_ids: grid(ids),
    attention_mask: grid(mask),
    position_ids: grid(positions),
    num_logits_to_keep: new OrtTensor("int64", BigInt64Array.of(BigInt(keep)), []),
  };
  for (const meta of session.inputMetadata) {
    if (!meta.name.startsWith("past_key_values") || !meta.isTensor) continue;
    const sizes = meta.shape.map((dim) => (typeof dim === "number" ? dim : dim === "batch_size" ? B : 0)); // prettier-ignore
    feeds[meta.name] = cache?.[meta.name] ?? new OrtTensor("float32", new Float32Array(0), sizes);
  }
  const { logits, ...present } = await session.run(feeds);
  const next = Object.entries(present).map(([name, value]) => [name.replace("present.", "past_key_values."), value]); // prettier-ignore
  return { logits: logits!, cache: Object.fromEntries(next) as Cache };
}

/** Largest difference of the last `rows` rows of `got` (1, n, V) from those of `want` (n, V). */
function difference(got: OrtTensor, want: Float32Array, row = 0): number {
  const [, n, V] = got.dims as [number, number, number];
  const mine = (got.data as Float32Array).subarray(row * n * V, (row + 1) * n * V);
  const theirs = want.subarray(want.length - n * V);
  return mine.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs[i]!)), 0);
}

const IDS = [5, 9, 2, 17, 3, 11, 8, 6, 4, 1];
const ones = (count: number): number[] => Array.from({ length: count }, () => 1);

it.each(causalFixtures)(
  "%s: any batch, prompt and cache gives the engine's logits, to 2e-5",
  async (name) => {
    const model = await loadModel(join(models, name));
    const want = (await model.logits([IDS])).data as Float32Array;
    const short = (await model.logits([IDS.slice(0, 6)])).data as Float32Array;
    await model.dispose();
    const { path, files } = await exportOnnx(model, join(scratch, name));
    expect(files).toContain("onnx/model.onnx");
    const session = await InferenceSession.create(join(path, "onnx/model.onnx"));
    const whole = await step(session, [IDS], [ones(10)]);
    expect(difference(whole.logits, want)).toBeLessThan(2e-5);
    const begun = await step(session, [IDS.slice(0, 6)], [ones(6)], { keep: 1 });
    expect(begun.logits.dims[1]).toBe(1);
    expect(difference(begun.logits, short)).toBeLessThan(2e-5);
    const more = await step(session, [IDS.slice(6, 9)], [ones(9)], begun);
    const last = await step(session, [IDS.slice(9)], [ones(10)], more);
    expect(difference(last.logits, want)).toBeLessThan(2e-5);
    const padded = [0, 0, 0, 0, ...IDS.slice(0, 6)];
    const mask = [ones(10), [0, 0, 0, 0, ...ones(6)]];
    const both = await step(session, [IDS, padded], mask, { keep: 6 });
    expect(difference(both.logits, want, 0)).toBeLessThan(2e-5);
    expect(difference(both.logits, short, 1)).toBeLessThan(2e-5);
    await session.release();
  },
);

it("weights lie in files beside the graph when one file cannot hold them, with the same logits", async () => {
  const model = await loadModel("storyteller-6m");
  const adapter = await loadAdapterFolder(join(import.meta.dirname, "golden/lora/adapter_after10"));
  const tuned = model.withAdapter(adapter);
  const want = (await tuned.logits([IDS])).data as Float32Array;
  await tuned.dispose();
  await model.dispose();
  const one = await mergeToOnnx(model, adapter, join(scratch, "one"));
  const parts = await mergeToOnnx(model, adapter, join(scratch, "parts"), { maxFileBytes: 8e6 });
  expect(one.changed.length).toBeGreaterThan(0);
  expect(await readdir(join(parts.path, "onnx"))).toEqual(["model.onnx", "model.onnx_data", "model.onnx_data_1", "model.onnx_data_2", "model.onnx_data_3"]); // prettier-ignore
  const config = JSON.parse(await readFile(join(parts.path, "config.json"), "utf8")) as Record<string, unknown>; // prettier-ignore
  expect(config["transformers.js_config"]).toEqual({ dtype: "fp32", use_external_data_format: { "model.onnx": 4 } }); // prettier-ignore
  expect(parts.files).toContain("tokenizer.json");
  for (const { path } of [one, parts]) {
    const session = await InferenceSession.create(join(path, "onnx/model.onnx"));
    const { logits } = await step(session, [IDS], [ones(10)]);
    expect(difference(logits, want)).toBeLessThan(1e-4);
    await session.release();
  }
});

it("a chat model: the template in tokenizer_config.json, and what ends a turn among the ids that stop", async () => {
  const folder = join(scratch, "chat");
  await cp(join(import.meta.dirname, "../models/storyteller-6m"), folder, { recursive: true });
  const path = join(folder, "tokenizer_config.json");
  const { chat_template, ...others } = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>; // prettier-ignore
  await writeFile(path, JSON.stringify(others));
  await writeFile(join(folder, "chat_template.jinja"), String(chat_template)); // where transformers 5 keeps it
  const model = await loadModel(folder);
  const out = await exportOnnx(model, join(scratch, "chat-onnx"));
  const read = async (name: string): Promise<Record<string, unknown>> =>
    JSON.parse(await readFile(join(out.path, name), "utf8")) as Record<string, unknown>;
  expect((await read("tokenizer_config.json"))["chat_template"]).toBe(chat_template);
  const ids = ["<|endoftext|>", "<|im_end|>"].map((token) => model.tokenizer.tokenId(token));
  expect((await read("generation_config.json"))["eos_token_id"]).toEqual(ids);
});

it("a LongRoPE model is written for the context in which its graph holds", async () => {
  const model = await loadModel(join(models, "phi3-longrope"));
  const { path } = await exportOnnx(model, join(scratch, "longrope"));
  const config = JSON.parse(await readFile(join(path, "config.json"), "utf8")) as Record<string, unknown>; // prettier-ignore
  expect(model.checkpoint.config["max_position_embeddings"]).toBe(64);
  expect(config["max_position_embeddings"]).toBe(32);
});

it("f16 that would overflow is refused, and nothing is written", async () => {
  const { checkpoint } = await loadModel(join(models, "llama"));
  const weights = {
    ...checkpoint.weights,
    async read(name: string): Promise<Tensor> {
      const stored = await checkpoint.weights.read(name);
      return name === "model.norm.weight" ? tensor("f32", stored.shape, new Float32Array(stored.data.length).fill(1e6)) : stored; // prettier-ignore
    },
  };
  const model = createModel({ ...checkpoint, weights });
  const out = join(scratch, "overflow");
  await expect(exportOnnx(model, out, { dtype: "f16" })).rejects.toMatchObject({ code: "not-finite" }); // prettier-ignore
  expect(existsSync(out)).toBe(false);
});

it("lorikeet merge --to onnx writes the folder; types that ONNX is not written in are a usage error", async () => {
  const adapter = join(import.meta.dirname, "golden/lora/adapter");
  const out = join(scratch, "command");
  const told = await lorikeet("merge", "-a", adapter, "-o", out, "--to", "onnx", "--dtype", "f16");
  expect(told.code, told.err).toBe(0);
  expect(await readdir(join(out, "onnx"))).toEqual(["model_fp16.onnx"]);
  const refused = await lorikeet("merge", "-a", adapter, "-o", `${out}2`, "--to", "onnx", "--dtype", "bf16"); // prettier-ignore
  expect(refused.code).toBe(2);
  expect(existsSync(`${out}2`)).toBe(false);
});
