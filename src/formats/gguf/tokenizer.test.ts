import { describe, expect, test } from "vitest";
import { LorikeetError } from "../../errors.ts";
import type { GgufValue } from "./metadata.ts";
import { ggmlPreTokenizer, preTokenizing } from "./pre-tokenizers.ts";
import { mergesOfScores } from "./sentencepiece.ts";
import { tokenizerFromGguf } from "./tokenizer.ts";
import { tokenizerToGguf } from "./tokenizer-write.ts";

const strings = (value: string[]): GgufValue => ({ type: "string", value });
const string = (value: string): GgufValue => ({ type: "string", value });
const ints = (value: number[]): GgufValue => ({ type: "i32", value });
const id = (value: number): GgufValue => ({ type: "u32", value });

const bytes: [string, GgufValue][] = [
  ["tokenizer.ggml.model", string("gpt2")],
  ["tokenizer.ggml.pre", string("smollm")],
  [
    "tokenizer.ggml.tokens",
    strings(["<unk>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "<tool>", "__proto__"]),
  ],
  ["tokenizer.ggml.token_type", ints([2, 3, 3, 1, 1, 1, 4, 1])],
  ["tokenizer.ggml.merges", strings(["a b"])],
  ["tokenizer.ggml.bos_token_id", id(1)],
  ["tokenizer.ggml.eos_token_id", id(0)],
  ["tokenizer.ggml.padding_token_id", id(2)],
  ["tokenizer.chat_template", string("{{ messages }}")],
];

const without = (key: string): Map<string, GgufValue> => new Map(bytes.filter(([name]) => name !== key)); // prettier-ignore
const having = (key: string, value: GgufValue): Map<string, GgufValue> => new Map([...bytes, [key, value]]); // prettier-ignore

test("a byte-level vocabulary: special and added tokens, merges, template, ids that end an answer", () => {
  const { tokenizer, config, generationConfig } = tokenizerFromGguf(new Map(bytes));
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  expect(tokenizer["added_tokens"]).toEqual([
    { id: 0, content: "<unk>", ...flags, special: true },
    { id: 1, content: "<|im_start|>", ...flags, special: true },
    { id: 2, content: "<|im_end|>", ...flags, special: true },
    { id: 6, content: "<tool>", ...flags, special: false },
  ]);
  const model = tokenizer["model"] as { vocab: Record<string, number>; merges: unknown };
  expect(model.merges).toEqual([["a", "b"]]);
  expect(Object.entries(model.vocab)).toHaveLength(8);
  expect(model.vocab["__proto__"]).toBe(7);
  expect(tokenizer["post_processor"]).toBeNull();
  expect(config).toMatchObject({
    bos_token: "<|im_start|>",
    eos_token: "<unk>",
    pad_token: "<|im_end|>",
    add_bos_token: false,
    chat_template: "{{ messages }}",
  });
  expect(generationConfig).toEqual({ bos_token_id: 1, eos_token_id: [0, 2], pad_token_id: 2 });
});

test("bos and eos frame text when the file says so, bos for Llama 3 when it says nothing", () => {
  const single = (metadata: Map<string, GgufValue>): unknown =>
    (tokenizerFromGguf(metadata).tokenizer["post_processor"] as { single: unknown } | null)?.single;
  const bos = { SpecialToken: { id: "<|im_start|>", type_id: 0 } };
  const text = { Sequence: { id: "A", type_id: 0 } };
  const yes: GgufValue = { type: "bool", value: true };
  const no: GgufValue = { type: "bool", value: false };
  expect(single(having("tokenizer.ggml.add_bos_token", yes))).toEqual([bos, text]);
  expect(single(having("tokenizer.ggml.pre", string("llama-bpe")))).toEqual([bos, text]);
  const both = having("tokenizer.ggml.add_eos_token", yes).set("tokenizer.ggml.add_bos_token", yes);
  expect(single(both)).toEqual([bos, text, { SpecialToken: { id: "<unk>", type_id: 0 } }]);
  const silent = having("tokenizer.ggml.pre", string("llama-bpe")).set("tokenizer.ggml.add_bos_token", no); // prettier-ignore
  expect(single(silent)).toBeUndefined();
});

test("SentencePiece scores become merges: best score first, longest left part first", () => {
  const pieces = ["<unk>", "a", "b", "c", "ab", "bc", "abc", "😀", "a😀"];
  const scores = [0, -9, -9, -9, -1, -2, -3, -9, -4];
  expect(mergesOfScores(pieces, scores, (piece) => piece !== 0)).toEqual([
    ["a", "b"],
    ["b", "c"],
    ["ab", "c"],
    ["a", "bc"],
    ["a", "😀"],
  ]);
});

test("a SentencePiece vocabulary: byte fallback, spaces as ▁, no prefix where the file says so", () => {
  const metadata = new Map<string, GgufValue>([
    ["tokenizer.ggml.model", string("llama")],
    ["tokenizer.ggml.tokens", strings(["<unk>", "<s>", "<0x0A>", "▁", "a", "▁a", "  "])],
    ["tokenizer.ggml.token_type", ints([2, 3, 6, 1, 1, 1, 4])],
    ["tokenizer.ggml.scores", { type: "f32", value: [0, 0, 0, -3, -2, -1, 0] }],
    ["tokenizer.ggml.bos_token_id", id(1)],
    ["tokenizer.ggml.unknown_token_id", id(0)],
  ]);
  const { tokenizer, config } = tokenizerFromGguf(metadata);
  expect(tokenizer["model"]).toMatchObject({
    unk_token: "<unk>",
    byte_fallback: true,
    fuse_unk: true,
    merges: [
      ["▁", "▁"], // the user's own token of two spaces
      ["▁", "a"],
    ],
  });
  expect((tokenizer["normalizer"] as { type: string }).type).toBe("Sequence");
  expect(config).toMatchObject({ bos_token: "<s>", add_bos_token: true });
  metadata.set("tokenizer.ggml.add_space_prefix", { type: "bool", value: false });
  expect((tokenizerFromGguf(metadata).tokenizer["normalizer"] as { type: string }).type).toBe("Replace"); // prettier-ignore
});

describe("what cannot be a tokenizer is refused", () => {
  test.each<[string, Map<string, GgufValue>, string]>([
    ["no model", without("tokenizer.ggml.model"), "corrupt-gguf"],
    ["no tokens", without("tokenizer.ggml.tokens"), "corrupt-gguf"],
    ["no merges", without("tokenizer.ggml.merges"), "corrupt-gguf"],
    ["a merge of three", having("tokenizer.ggml.merges", strings(["a b c"])), "corrupt-gguf"],
    ["types of another length", having("tokenizer.ggml.token_type", ints([1])), "corrupt-gguf"],
    ["tokens that are numbers", having("tokenizer.ggml.tokens", ints([1])), "corrupt-gguf"],
    ["WordPiece", having("tokenizer.ggml.model", string("bert")), "unsupported-tokenizer"],
    ["unknown splitting", having("tokenizer.ggml.pre", string("toString")), "unsupported-tokenizer"],
    ["no scores", having("tokenizer.ggml.model", string("llama")), "corrupt-gguf"],
  ])("%s", (_, metadata, code) => {
    expect(() => tokenizerFromGguf(metadata)).toThrow(LorikeetError);
    try {
      tokenizerFromGguf(metadata);
    } catch (error) {
      expect(error).toMatchObject({ code });
    }
  }); // prettier-ignore

  test("when written: other models, too many tokens, unknown pre-tokenizers", () => {
    const bpe = { type: "BPE", vocab: { a: 0, b: 1 }, merges: [] };
    const tokenizer = { model: bpe, decoder: { type: "ByteLevel" }, pre_tokenizer: { type: "Whitespace" } }; // prettier-ignore
    const write = (changes: object, vocabSize = 2): unknown => tokenizerToGguf({ tokenizer: { ...tokenizer, ...changes }, vocabSize }); // prettier-ignore
    expect(() => write({ model: { type: "Unigram" } })).toThrow(/BPE model .* got Unigram/);
    expect(() => write({}, 1)).toThrow(/at most 1 tokens/);
    expect(() => write({})).toThrow(/pre-tokenizer that llama.cpp knows/);
  });
});

test("pre-tokenizers are recognised by what they do", () => {
  for (const name of ["gpt-2", "smollm", "llama-bpe", "qwen2", "gpt-4o", "tekken", "default"]) {
    const { preTokenizer, ignoreMerges } = preTokenizing(name);
    expect(ggmlPreTokenizer(preTokenizer, ignoreMerges)).toBe(name);
  }
});

test("ids without a token are filled with unused ones", () => {
  const tokenizer = {
    model: { type: "BPE", vocab: { a: 0, b: 2 }, merges: [] },
    decoder: { type: "ByteLevel" },
    pre_tokenizer: { type: "ByteLevel", use_regex: true },
    added_tokens: [{ id: 3, content: "<x>", special: true }],
  };
  const metadata = tokenizerToGguf({ tokenizer, vocabSize: 5 });
  expect(metadata.get("tokenizer.ggml.tokens")?.value).toEqual(["a", "[PAD1]", "b", "<x>", "[PAD4]"]); // prettier-ignore
  expect(metadata.get("tokenizer.ggml.token_type")?.value).toEqual([1, 5, 1, 3, 5]);
});
