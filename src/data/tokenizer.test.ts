import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";

interface Expected {
  ids: number[][];
  texts: string[];
}
const read = (path: string): unknown =>
  JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));
const { strings, styles, embedded } = read("fixtures/tokenizers.json") as {
  strings: string[];
  styles: Record<string, Expected & { tokenizer: object }>;
  embedded: Expected;
};
const model = "../../models/storyteller-6m";
const storyteller = createTokenizer({
  tokenizer: read(`${model}/tokenizer.json`),
  config: read(`${model}/tokenizer_config.json`) as Record<string, unknown>,
  generationConfig: read(`${model}/generation_config.json`) as Record<string, unknown>,
});

const cases: [string, Tokenizer, Expected][] = [
  ["storyteller-6m", storyteller, embedded],
  ...Object.entries(styles).map(([name, style]): [string, Tokenizer, Expected] => [
    name,
    createTokenizer({ tokenizer: style.tokenizer }),
    style,
  ]),
];

describe.each(cases)("tokenizer in the style of %s", (_, tokenizer, expected) => {
  it(`gives Python's ids for ${strings.length} hard strings`, () => {
    expect(strings.length).toBeGreaterThanOrEqual(200);
    const ids = strings.map((text) => [text, tokenizer.encode(text)]);
    expect(ids).toEqual(strings.map((text, i) => [text, expected.ids[i]]));
  });

  it("gives Python's text for these ids", () => {
    expect(expected.ids.map((ids) => tokenizer.decode(ids))).toEqual(expected.texts);
  });

  it("streams the same text, never half a character", () => {
    for (const [i, ids] of expected.ids.entries()) {
      const decoder = tokenizer.stream();
      const parts = ids.map((id) => decoder.push(id));
      expect(parts.join("") + decoder.flush()).toBe(expected.texts[i]);
      if (!expected.texts[i]!.includes("\ufffd")) expect(parts.join("")).not.toContain("\ufffd");
    }
  });
});

const tricky = "../../test/fixtures/tokenizer-strings";
const smollm2 = process.env["LORIKEET_SMOLLM2"]; // a folder with SmolLM2's tokenizer.json, too large to carry along

describe("tokenizer of a real model", () => {
  const check = (tokenizer: Tokenizer, name: string): void => {
    const texts = read(`${tricky}/strings.json`) as string[];
    const { ids } = read(`${tricky}/${name}.json`) as { ids: number[][] };
    expect(texts.length).toBeGreaterThanOrEqual(200);
    const encoded = texts.map((text) => tokenizer.encode(text, { addSpecialTokens: false }));
    expect(encoded).toEqual(ids);
    expect(ids.map((each) => tokenizer.decode(each))).toEqual(texts);
  };

  it("gives Python's ids for storyteller-6m", () => check(storyteller, "storyteller-6m"));

  it.skipIf(smollm2 === undefined)("gives Python's ids for SmolLM2", () => {
    const tokenizer = JSON.parse(readFileSync(`${smollm2!}/tokenizer.json`, "utf8")) as object;
    check(createTokenizer({ tokenizer }), "smollm2");
  });
});

describe("tokenizer", () => {
  it("finds special tokens in tokenizer_config.json, then in the models' configs", () => {
    expect(storyteller.specials).toEqual({
      bosId: 0,
      bosToken: "<|endoftext|>",
      eosId: 0,
      eosToken: "<|endoftext|>",
      padId: 3,
      stopIds: [0],
    });
    const tokenizer = read(`${model}/tokenizer.json`);
    const bare = createTokenizer({ tokenizer, generationConfig: { eos_token_id: [2, 0] } });
    expect(bare.specials).toMatchObject({ eosId: 2, eosToken: "<|im_end|>", stopIds: [2, 0] });
    expect(bare.specials).toMatchObject({ bosId: undefined, padId: 2 });
    const named = createTokenizer({
      tokenizer,
      config: { eos_token: { content: "<|im_end|>" } },
      generationConfig: { eos_token_id: 0 },
    });
    expect(named.specials).toMatchObject({ eosId: 2, stopIds: [2, 0] });
  });

  it("adds the post-processor's tokens only when asked to", () => {
    const llama = createTokenizer({ tokenizer: styles["llama3"]!.tokenizer });
    const bos = llama.tokenId("<s>");
    expect(llama.encode("hi")[0]).toBe(bos);
    expect(llama.encode("hi", { addSpecialTokens: false })).not.toContain(bos);
  });

  it("leaves out unknown ids and, when asked to, special tokens", () => {
    const ids = [1, ...storyteller.encode("once"), 2, 999_999];
    expect(storyteller.decode(ids)).toBe("<|im_start|>once<|im_end|>");
    expect(storyteller.decode(ids, { skipSpecialTokens: true })).toBe("once");
    expect(storyteller.decode([])).toBe("");
    expect(storyteller.vocabSize).toBe(6144);
  });

  it("ends a stream that stops within a character with U+FFFD", () => {
    const [first] = storyteller.encode("😀");
    const decoder = storyteller.stream();
    expect(decoder.push(first!)).toBe("");
    expect(decoder.flush()).toBe("\ufffd");
  });

  it.each([
    ["no object", "a string", /object with a "model"/],
    ["no model", {}, /object with a "model"/],
    ["an unknown model", { model: { type: "Markov" } }, /a model of type "Markov"/],
    ["a cut-off model", { model: { type: "BPE", vocab: {} } }, /supported kind/],
  ])("refuses %s", (_, tokenizer, message) => {
    const make = (): unknown => createTokenizer({ tokenizer });
    expect(make).toThrow(expect.objectContaining({ code: "tokenizer" }));
    expect(make).toThrow(message);
  });
});

describe("a tokenizer.json that is not what it should be", () => {
  const whole = read(`${model}/tokenizer.json`) as { model: Record<string, unknown> };
  const vocab = whole.model["vocab"] as Record<string, number>;
  it.each([
    [{ type: "Telepathy" }, 'type "Telepathy"'],
    [{ vocab: 5 }, "give each token its id"],
    [{ vocab: { a: "x" } }, "give each token its id"],
    [{ merges: ["ab"] }, "not all pairs"],
    [{ type: "Unigram" }, "give each token its score"],
  ])("%j is refused", (change, message) => {
    expect(() =>
      createTokenizer({ tokenizer: { ...whole, model: { ...whole.model, ...change } } }),
    ).toThrow(message);
  });

  it("a token that the model has no row for is an error that names it", () => {
    const id = vocab["he"]!;
    const small = createTokenizer({ tokenizer: whole, modelConfig: { vocab_size: id } });
    expect(() => small.encode("he")).toThrow(`got "he" with id ${id}`);
    const enough = createTokenizer({ tokenizer: whole, modelConfig: { vocab_size: id + 1 } });
    expect(enough.encode("he")).toEqual([id]);
  });
});
