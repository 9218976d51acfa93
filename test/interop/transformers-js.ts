/**
 * @file Compares Lorikeet with Transformers.js: ONNX folders that Lorikeet wrote (base, merged model, weights inside
 * and beside the graph, f16) must generate the same text greedily there as in Lorikeet's own engine. Run by hand;
 * prints a Markdown table.
 *
 *   mkdir /tmp/tjs && npm install --prefix /tmp/tjs --ignore-scripts @huggingface/transformers
 *   node --import ./scripts/typescript.js test/interop/transformers-js.ts /tmp/tjs [MODEL ADAPTER]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { generate } from "../../src/api/generate.ts";
import { loadModel } from "../../src/api/load-model.ts";
import type { Model } from "../../src/api/model.ts";
import { exportOnnx, mergeToOnnx } from "../../src/api/onnx-export.ts";
import { merge } from "../../src/api/merge.ts";
import { loadAdapterFolder } from "../../src/host/adapter-files.ts";
import type { OnnxSaveOptions } from "../../src/host/save-onnx.ts";

const COUNT = 48;
const PROMPTS = [
  "Once upon a time, there was a little bird",
  "The old man walked to the river and",
];

const CHAT = [{ role: "user", content: "Tell me about a bird." }] as const;

/** What is used of Transformers.js. */
interface Library {
  readonly pipeline: (task: string, folder: string, options: object) => Promise<Pipeline>;
}
interface Pipeline {
  (prompts: string | string[] | object[], options: object): Promise<Answer[] | Answer[][]>;
  dispose(): Promise<void>;
}
interface Answer {
  readonly generated_text: string;
}
interface ChatAnswer {
  readonly generated_text: readonly { readonly content: string }[];
}
interface Texts {
  /** Continuations of `PROMPTS`, one by one; as one padded batch; and the answer to `CHAT`. */
  readonly alone: string[];
  readonly batch: string[];
  readonly chat: string[];
}

const [home, reference = "storyteller-6m", adapterFolder = "test/golden/lora/adapter_after10"] =
  process.argv.slice(2);
if (home === undefined) throw new Error("Name the folder that Transformers.js is installed in.");
const entry = "node_modules/@huggingface/transformers/dist/transformers.node.mjs";
const { pipeline } = (await import(pathToFileURL(resolve(home, entry)).href)) as Library;

async function theirs(folder: string): Promise<Texts> {
  const generator = await pipeline("text-generation", folder, { local_files_only: true });
  const options = { max_new_tokens: COUNT, do_sample: false, return_full_text: false };
  const alone: string[] = [];
  for (const prompt of PROMPTS) {
    const [answer] = (await generator(prompt, options)) as Answer[];
    alone.push(answer!.generated_text);
  }
  const both = (await generator([...PROMPTS], options)) as Answer[][];
  const [answer] = (await generator([...CHAT], options)) as unknown as [ChatAnswer];
  await generator.dispose();
  const { content } = answer.generated_text.at(-1)!;
  return { alone, batch: both.map(([one]) => one!.generated_text), chat: [content] };
}

async function ours(model: Model): Promise<Texts> {
  const texts: string[] = [];
  for (const prompt of [...PROMPTS, CHAT]) {
    let text = "";
    for await (const token of generate(model, prompt, { maxNewTokens: COUNT })) text += token.text;
    texts.push(text);
  }
  const alone = texts.slice(0, PROMPTS.length);
  return { alone, batch: alone, chat: texts.slice(PROMPTS.length) };
}

/** How many tokens of each text agree, from the first on, of all that Lorikeet made. */
function agreement(model: Model, got: readonly string[], want: readonly string[]): string {
  const idsOf = (text: string): readonly number[] => model.tokenizer.encode(text);
  return want
    .map((text, i) => {
      const [expected, actual] = [idsOf(text), idsOf(got[i]!)];
      const differs = expected.findIndex((id, j) => id !== actual[j]);
      return `${differs < 0 ? expected.length : differs}/${expected.length}`;
    })
    .join(", ");
}

const scratch = await mkdtemp(join(tmpdir(), "lorikeet-onnx-"));
try {
  const base = await loadModel(reference);
  const adapter = await loadAdapterFolder(adapterFolder);
  const rows: string[][] = [];
  const compare = async (what: string, folder: string, want: Texts): Promise<void> => {
    const got = await theirs(folder);
    const kinds = ["alone", "batch", "chat"] as const;
    rows.push([what, ...kinds.map((kind) => agreement(base, got[kind], want[kind]))]);
    process.stderr.write(`${rows.at(-1)!.join(" | ")}\n${JSON.stringify(got.chat[0])}\n`);
    await rm(folder, { recursive: true });
  };
  const plain = await exportOnnx(base, join(scratch, "base"));
  await compare("base", plain.path, await ours(base));
  const folder = join(scratch, "safetensors");
  await merge(base, adapter, folder, { dtype: "f32" });
  const merged = await ours(await loadModel(folder));
  const variants: [string, OnnxSaveOptions][] = [
    ["merged", {}],
    ["merged, weights beside the graph in files of 16 MB", { maxFileBytes: 16e6 }],
    ["merged, stored as f16", { dtype: "f16" }],
  ];
  for (const [what, options] of variants) {
    const { path } = await mergeToOnnx(base, adapter, join(scratch, "merged"), options);
    await compare(what, path, merged);
  }
  process.stdout.write(`| ${reference} | equal tokens, prompt by prompt | in one padded batch | chat |\n| --- | --- | --- | --- |\n`); // prettier-ignore
  for (const row of rows) process.stdout.write(`| ${row.join(" | ")} |\n`);
} finally {
  await rm(scratch, { recursive: true });
}
