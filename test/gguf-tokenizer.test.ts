import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { createTokenizer } from "../src/data/tokenizer.ts";
import { tokenizerFromGguf } from "../src/formats/gguf/tokenizer.ts";
import { tokenizerToGguf } from "../src/formats/gguf/tokenizer-write.ts";

interface Style {
  readonly tokenizer: Record<string, unknown>;
  readonly ids: number[][];
  readonly texts: string[];
}

const url = new URL("../src/data/fixtures/tokenizers.json", import.meta.url);
const fixture = JSON.parse(readFileSync(url, "utf8")) as {
  strings: string[];
  styles: Record<string, Style>;
  embedded: { ids: number[][]; texts: string[] };
};
const names = { bos_token: "<s>", eos_token: "</s>", pad_token: "<pad>", unk_token: "<unk>" };

/** Strings on which GGUF loses something: <mask> swallows the space before it, which GGUF cannot say. */
const isKept = (text: string): boolean => !text.includes("<mask>");

describe("a tokenizer written as GGUF metadata gives the ids of Python's tokenizers again", () => {
  test.each(["gpt2", "smollm2", "llama3", "qwen2", "llama2"])("%s", (name) => {
    const { tokenizer, ids, texts } = fixture.styles[name]!;
    const metadata = tokenizerToGguf({ tokenizer, config: names, vocabSize: 700 });
    const files = tokenizerFromGguf(metadata);
    const back = createTokenizer(files);
    let compared = 0;
    for (const [i, text] of fixture.strings.entries()) {
      if (!isKept(text)) continue;
      compared++;
      expect(back.encode(text), JSON.stringify(text)).toEqual(ids[i]);
      expect(back.decode(ids[i]!), JSON.stringify(text)).toBe(texts[i]);
    }
    expect(compared).toBeGreaterThan(390);
  });

  test("the embedded model's", () => {
    const folder = new URL("../models/storyteller-6m/", import.meta.url);
    const read = (file: string): Record<string, unknown> =>
      JSON.parse(readFileSync(new URL(file, folder), "utf8")) as Record<string, unknown>;
    const config = read("tokenizer_config.json");
    const metadata = tokenizerToGguf({
      tokenizer: read("tokenizer.json"),
      config,
      vocabSize: 6144,
    });
    const files = tokenizerFromGguf(metadata);
    expect(files.config["chat_template"]).toBe(config["chat_template"]);
    const back = createTokenizer(files);
    fixture.strings.forEach((text, i) => {
      expect(back.encode(text), JSON.stringify(text)).toEqual(fixture.embedded.ids[i]);
    });
  });
});

test("a SentencePiece model gives SentencePiece's own ids", () => {
  const source = new URL("../src/formats/fixtures/sentencepiece.json", import.meta.url);
  const model = JSON.parse(readFileSync(source, "utf8")) as {
    tokens: string[];
    scores: number[];
    types: number[];
    texts: string[];
    ids: number[][];
  };
  const { tokenizer } = tokenizerFromGguf(
    new Map([
      ["tokenizer.ggml.model", { type: "string", value: "llama" }],
      ["tokenizer.ggml.tokens", { type: "string", value: model.tokens }],
      ["tokenizer.ggml.scores", { type: "f32", value: model.scores }],
      ["tokenizer.ggml.token_type", { type: "i32", value: model.types }],
      ["tokenizer.ggml.bos_token_id", { type: "u32", value: 1 }],
    ]),
  );
  const back = createTokenizer({ tokenizer });
  expect(model.texts.length).toBeGreaterThan(380);
  model.texts.forEach((text, i) => {
    const ids = back.encode(text, { addSpecialTokens: false });
    expect(ids, JSON.stringify(text)).toEqual(model.ids[i]);
    expect(back.encode(text)).toEqual([1, ...ids]);
  });
});
