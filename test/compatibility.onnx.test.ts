/** @file Each cell of the compatibility table in docs/adapters.md, tried with an adapter that PEFT saved. */
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModel } from "../src/api/load-model.ts";
import { merge, mergeToGguf } from "../src/api/merge.ts";
import { createModel, type Model } from "../src/api/model.ts";
import { mergeToOnnx } from "../src/api/onnx-export.ts";
import { plainAdapter } from "../src/api/plain-adapter.ts";
import type { Adapter } from "../src/adapter/adapter.ts";
import { loadAdapterFolder, saveAdapter } from "../src/host/adapter-files.ts";
import { loadAnyAdapter, saveGgufAdapter, saveMlxAdapter } from "../src/host/adapter-formats.ts";
import { openGguf } from "../src/host/checkpoint-gguf.ts";

/** Rows of the table: an adapter that has the feature. */
const FEATURES: Readonly<Record<string, string>> = {
  "LoRA on linear layers": "targets-all-linear",
  "ranks by module": "rank-pattern",
  "alphas by module, rank-stabilised": "patterns-rslora",
  DoRA: "adapter-bf16-dora",
  "`modules_to_save`": "save-norms",
  "bias of B (`lora_bias`)": "lora-bias",
  "trained biases of the base": "gpt2-bias-save",
  "trained token rows": "tokens-dict",
  "LoRA on an embedding": "embedding",
  "LoRA on a tied embedding": "embedding-tied",
  "`target_parameters`": "parameters",
  "PiSSA, OLoRA": "init-pissa",
};

const IDS = [5, 9, 2, 17, 3, 11, 8, 6, 4, 9];
const root = import.meta.dirname;
let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "lorikeet-compatibility-"));
});
afterAll(() => rm(scratch, { recursive: true }));

interface Case {
  readonly base: Model;
  readonly adapter: Adapter;
  readonly folder: string;
  readonly out: string;
}

async function logitsOf(model: Model): Promise<Float32Array> {
  const { data } = await model.logits([IDS]);
  await model.dispose();
  return data as Float32Array;
}

async function onnxLogits(folder: string): Promise<Float32Array> {
  const session = await InferenceSession.create(join(folder, "onnx/model.onnx"));
  const whole = (values: readonly number[], shape: readonly number[]): OrtTensor =>
    new OrtTensor("int64", BigInt64Array.from(values, BigInt), shape);
  const row = [1, IDS.length];
  const feeds: Record<string, OrtTensor> = {
    input_ids: whole(IDS, row),
    attention_mask: whole(IDS.map(() => 1), row),
    position_ids: whole(IDS.map((_, i) => i), row),
    num_logits_to_keep: whole([0], []),
  }; // prettier-ignore
  for (const meta of session.inputMetadata)
    if (meta.isTensor && meta.name.startsWith("past"))
      feeds[meta.name] = new OrtTensor("float32", new Float32Array(0), meta.shape.map((dim) => (dim === "batch_size" ? 1 : typeof dim === "number" ? dim : 0))); // prettier-ignore
  const { logits } = await session.run(feeds);
  await session.release();
  return logits!.data as Float32Array;
}

/** Columns of the table: the logits of what was written there. */
const FORMATS: Readonly<Record<string, (given: Case) => Promise<Float32Array>>> = {
  async PEFT({ base, adapter, folder, out }) {
    await saveAdapter(adapter, out);
    const file = "adapter_model.safetensors";
    if (existsSync(join(folder, file)))
      expect(await readFile(join(out, file))).toEqual(await readFile(join(folder, file)));
    return logitsOf(base.withAdapter(await loadAdapterFolder(out)));
  },
  async "merged safetensors"({ base, adapter, out }) {
    await merge(base, adapter, out, { dtype: "f32" });
    return logitsOf(await loadModel(out));
  },
  async "merged GGUF"({ base, adapter, out }) {
    const { files } = await mergeToGguf(base, adapter, out, { type: "F32" });
    // the tiny bases have no tokenizer, which a model for use must have
    const { config, weights } = await openGguf(join(out, files[0]!));
    return logitsOf(createModel({ ...base.checkpoint, config, weights }));
  },
  async "merged ONNX"({ base, adapter, out }) {
    await mergeToOnnx(base, adapter, out);
    return onnxLogits(out);
  },
  async "GGUF adapter"({ base, adapter, out }) {
    const { config } = base.checkpoint;
    await saveGgufAdapter(await plainAdapter(adapter, base), { config, layers: base.layers }, `${out}.gguf`); // prettier-ignore
    return logitsOf(base.withAdapter(await loadAnyAdapter(`${out}.gguf`, config)));
  },
  async "mlx-lm"({ base, adapter, out }) {
    const layers = Number(base.checkpoint.config["num_hidden_layers"] ?? base.checkpoint.config["n_layer"]); // prettier-ignore
    await saveMlxAdapter(await plainAdapter(adapter, base), layers, out);
    return logitsOf(base.withAdapter(await loadAnyAdapter(out)));
  },
};

/** The documented table: a row for each feature, its cells by format. */
function documented(): Map<string, Map<string, string>> {
  const lines = readFileSync(join(root, "../docs/adapters.md"), "utf8").split("\n");
  const start = lines.findIndex((line) => line.startsWith("| adapter has"));
  const cellsOf = (line: string): string[] => line.split("|").slice(1, -1).map((cell) => cell.trim()); // prettier-ignore
  const [, ...formats] = cellsOf(lines[start]!);
  const rows = lines.slice(
    start + 2,
    lines.findIndex((line, i) => i > start && line === ""),
  );
  return new Map(rows.map(cellsOf).map(([feature, ...cells]) => [feature!, new Map(cells.map((cell, i) => [formats[i]!, cell]))])); // prettier-ignore
}

const table = documented();

it("the table has a row for each feature and a column for each format", () => {
  expect([...table.keys()]).toEqual(Object.keys(FEATURES));
  for (const cells of table.values()) expect([...cells.keys()]).toEqual(Object.keys(FORMATS));
});

describe.each(Object.entries(FEATURES))("%s", (feature, name) => {
  let expected: { want: Float32Array; untouched: Float32Array } | undefined;
  it.each(Object.entries(FORMATS))("→ %s, as documented", async (format, write) => {
    const cell = table.get(feature)!.get(format)!;
    expect(cell).toMatch(/^(yes|refused)/);
    const { base: baseName, adapter_folder: inside } = JSON.parse(await readFile(join(root, "fixtures/adapters", name, "case.json"), "utf8")) as { base: string; adapter_folder: string }; // prettier-ignore
    const folder = join(root, "fixtures/adapters", name, inside);
    const base = await loadModel(join(root, "fixtures/models", baseName));
    const adapter = await loadAdapterFolder(folder);
    const out = join(scratch, `${name}-${format.replaceAll(" ", "-")}`);
    const written = write({ base, adapter, folder, out });
    if (cell.startsWith("refused")) {
      await expect(written).rejects.toMatchObject({ code: expect.stringMatching(/^(unsupported-(gguf|mlx|architecture)|cannot-merge)$/) as string, hint: expect.stringContaining("erge") as string }); // prettier-ignore
      expect(existsSync(out) || existsSync(`${out}.gguf`)).toBe(false);
      return;
    }
    const got = await written;
    const { want, untouched } = (expected ??= { want: await logitsOf(base.withAdapter(adapter)), untouched: await logitsOf(base) }); // prettier-ignore
    const differs = (values: Float32Array): number => want.reduce((most, value, i) => Math.max(most, Math.abs(value - values[i]!)), 0); // prettier-ignore
    expect(differs(got)).toBeLessThan(1e-4);
    expect(differs(untouched)).toBeGreaterThan(1e-3);
  });
});
