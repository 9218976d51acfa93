import { copyFile, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { loadModel } from "../src/api/load-model.ts";
import type { Model } from "../src/api/model.ts";
import { train } from "../src/api/train.ts";
import { loadAdapterFolder } from "../src/host/adapter-files.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import type { TrainEvent } from "../src/train/events.ts";
import { lorikeet } from "./support/command.ts";

const fixtures = join(import.meta.dirname, "fixtures/models");
const words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "happy", "good", "sunny", "sad", "bad", "rain", "day"]; // prettier-ignore
let scratch: string;
let data: string;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "lorikeet-classify-"));
  data = join(scratch, "rows.jsonl");
  const rows = Array.from({ length: 24 }, (_, i) => ({
    text: i % 2 === 0 ? `${words[4 + (i % 3)]!} day good` : `${words[7 + (i % 3)]!} day bad`,
    label: i % 2 === 0 ? "good" : "bad",
  }));
  await writeFile(data, rows.map((row) => JSON.stringify(row)).join("\n"));
});

/** The encoder fixture with a tokenizer of a few words. */
async function encoder(name: string): Promise<string> {
  const folder = await mkdtemp(join(scratch, `${name}-`));
  for (const file of ["config.json", "model.safetensors"])
    await copyFile(join(fixtures, name, file), join(folder, file));
  const special = (id: number): object => ({ id, content: words[id], special: true, single_word: false, lstrip: false, rstrip: false, normalized: false }); // prettier-ignore
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [0, 1, 2, 3].map(special),
    normalizer: { type: "Lowercase" },
    pre_tokenizer: { type: "Whitespace" },
    post_processor: {
      type: "TemplateProcessing",
      single: [
        { SpecialToken: { id: "[CLS]", type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: "[SEP]", type_id: 0 } },
      ],
      pair: [],
      special_tokens: {
        "[CLS]": { id: "[CLS]", ids: [2], tokens: ["[CLS]"] },
        "[SEP]": { id: "[SEP]", ids: [3], tokens: ["[SEP]"] },
      },
    },
    decoder: { type: "WordPiece", prefix: "##", cleanup: false },
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(words.map((word, id) => [word, id])),
    },
  };
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
  const config = { unk_token: "[UNK]", pad_token: "[PAD]", cls_token: "[CLS]", sep_token: "[SEP]", tokenizer_class: "PreTrainedTokenizerFast" }; // prettier-ignore
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  return folder;
}

/** The likeliest class of `text`. */
async function classOf(model: Model, text: string): Promise<string> {
  const { data: logits } = await model.logits([model.tokenizer.encode(text)]);
  const values = Array.from(logits as Float32Array);
  return model.labels![values.indexOf(Math.max(...values))]!;
}

/** The largest difference of two vectors. */
function largest(a: Tensor["data"], b: Tensor["data"]): number {
  expect(a).toHaveLength(b.length);
  return Array.from(a, Number).reduce((most, value, i) => Math.max(most, Math.abs(value - Number(b[i]))), 0); // prettier-ignore
}

describe.each(["bert", "roberta", "modernbert"])("%s learns to classify", (name) => {
  it("a new head for the data's classes, LoRA in the layers, one evaluation an epoch; saved and loaded to the same logits", async () => {
    const model = await loadModel(await encoder(name));
    expect(model.labels).toHaveLength(3);
    const outputDir = join(scratch, `${name}-out`);
    const run = train(model, {
      task: "text-classification",
      ...{ data: [data], outputDir, validationSplit: 0.2, report: false },
      ...{ epochs: 8, batchSize: 6, learningRate: 1e-2, r: 4, threads: 1, seed: 3 },
    });
    const events: TrainEvent[] = [];
    for await (const event of run) events.push(event);
    const losses = events.flatMap((event) => (event.type === "step" ? [event.loss] : []));
    expect(losses[0]!).toBeGreaterThan(0.5);
    expect(losses.at(-1)!).toBeLessThan(0.2);
    const evals = events.flatMap((event) => (event.type === "eval" ? [event.loss] : []));
    expect(evals.at(-1)!).toBeLessThan(0.2);

    const trained = await run.model();
    expect(trained.labels).toHaveLength(2);
    const adapter = await loadAdapterFolder(outputDir);
    expect(adapter.config).toMatchObject({ taskType: "SEQ_CLS", modulesToSave: ["classifier", "score"] }); // prettier-ignore
    const again = model.withAdapter(adapter);
    const ids = trained.tokenizer.encode("sunny day good");
    expect((await again.logits([ids])).data).toEqual((await trained.logits([ids])).data);
    const [plain, adapted] = [await model.embeddings([ids]), await again.embeddings([ids])];
    expect(largest(adapted.data, plain.data)).toBeGreaterThan(0.1);
    const shorter = trained.tokenizer.encode("rain bad");
    const [single, padded] = [await again.embeddings([shorter]), await again.embeddings([ids, shorter])]; // prettier-ignore
    expect(largest(padded.data.slice(single.shape[1]), single.data)).toBeLessThan(1e-5);
    const named = model.withLabels(["bad", "good"]).withAdapter(adapter);
    expect(await classOf(named, "happy day")).toBe("good");
    expect(await classOf(named, "rain rain bad")).toBe("bad");
    for (const each of [trained, again, named, model]) await each.dispose();
  }, 120_000);
});

it("train --task text-classification resumes to the bytes of a run that was not stopped", async () => {
  const folder = await encoder("bert");
  const flags = ["--model", folder, "--data", data, "--task", "text-classification", "--r", "2", "--threads", "1", "--no-report", "--save-steps", "2", "--lora-dropout", "0.1"]; // prettier-ignore
  const [whole, half] = [join(scratch, "whole"), join(scratch, "half")];
  const steps = (n: string): string[] => ["--max-steps", n, "--lr-scheduler-type", "constant"];
  expect((await lorikeet("train", ...flags, ...steps("4"), "-o", whole)).err).not.toContain(
    "error",
  );
  expect((await lorikeet("train", ...flags, ...steps("2"), "-o", half)).code).toBe(0);
  expect((await lorikeet("train", ...flags, ...steps("4"), "-o", half, "--resume")).code).toBe(0);
  const bytes = await Promise.all([whole, half].map((path) => readFile(join(path, "adapter_model.safetensors")))); // prettier-ignore
  expect(bytes[0]!.equals(bytes[1]!)).toBe(true);
}, 120_000);

it("names a task that the model is not made for, rows without label and labels that do not exist", async () => {
  const folder = await encoder("bert");
  const flags = ["--model", folder, "--no-report", "-o", join(scratch, "refused")];
  const generates = await lorikeet("train", ...flags, "--data", data);
  expect(generates.err).toContain("Expected `task: text-classification`");
  const task = ["--task", "text-classification"];
  const classifies = await lorikeet("train", "--data", data, ...task, "-o", join(scratch, "no"));
  expect(classifies.err).toContain("Expected `task: text-generation`");
  const bad = join(scratch, "bad.jsonl");
  await writeFile(bad, '{"text":"a"}\n{"text":"b","label":"god"}\n{"text":"c","label":"bad"}\n');
  const wrong = await lorikeet("train", ...flags, "--data", bad, ...task, "--labels", "good,bad");
  expect(wrong.err).toMatch(/bad\.jsonl:1: Expected the columns text, label, got text/);
  expect(wrong.err).toMatch(/bad\.jsonl:2: .*got "god" \(did you mean "good"\?\)/);
  await writeFile(bad, '{"text":"a","label":"x"}\n{"text":"b","label":"x"}\n');
  expect((await lorikeet("train", ...flags, "--data", bad, ...task)).err).toContain("data-labels");
}, 60_000);
