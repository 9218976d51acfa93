import { expect, test } from "vitest";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";

const flags = { lstrip: false, rstrip: false, normalized: false, special: false };

/** A WordPiece tokenizer that knows `words`, 1 for the first; 0 is what it does not know. */
function wordPieces(words: readonly string[], steps: object): Tokenizer {
  const vocab = Object.fromEntries(["[UNK]", ...words].map((word, id) => [word, id]));
  const model = { type: "WordPiece", unk_token: "[UNK]", continuing_subword_prefix: "##", max_input_chars_per_word: 100, vocab }; // prettier-ignore
  const decoder = { type: "WordPiece", prefix: "##", cleanup: false };
  return createTokenizer({ tokenizer: { model, decoder, added_tokens: [], ...steps } });
}

const bert = {
  normalizer: {
    type: "BertNormalizer",
    clean_text: false,
    handle_chinese_chars: true,
    strip_accents: false,
    lowercase: true,
  },
  pre_tokenizer: { type: "BertPreTokenizer" },
};

// each expected value is what Python's tokenizers 0.23 gives for the same tokenizer.json
test("BERT: ideographs past U+FFFF stand alone, a last sigma stays a sigma, U+FEFF is no space", () => {
  const tokenizer = wordPieces(["𠜎", "𠜱", "ασ", "ας", "a", "b", "\ufeff", "!"], bert);
  expect(tokenizer.encode("𠜎𠜱a")).toEqual([1, 2, 5]);
  expect(tokenizer.encode("ΑΣ Ας")).toEqual([3, 4]);
  expect(tokenizer.encode("a!b a\u0085b \ufeff")).toEqual([5, 8, 6, 5, 6, 7]);
});

test("WhitespaceSplit cuts at U+0085, not at U+FEFF", () => {
  const steps = { pre_tokenizer: { type: "WhitespaceSplit" } };
  const tokenizer = wordPieces(["a", "b", "a\ufeffb"], steps);
  expect(tokenizer.encode("a\u0085b  a\ufeffb")).toEqual([1, 2, 3]);
});

test("Lowercase goes letter by letter", () => {
  const normalizer = { type: "Sequence", normalizers: [{ type: "Lowercase" }] };
  const tokenizer = wordPieces(["ασ", "ας"], { ...bert, normalizer });
  expect(tokenizer.encode("ΑΣ")).toEqual([1]);
});

test("an added token that is a whole word is not found within one", () => {
  const token = { ...flags, id: 9, content: "<go>", single_word: true };
  const other = { ...flags, id: 10, content: "<x>", single_word: false };
  const steps = { pre_tokenizer: { type: "WhitespaceSplit" }, added_tokens: [token, other] };
  const words = ["a", "b", "<go>b", "a<go>", "a<go>b", "<go><go>b", "y", "z"];
  const tokenizer = wordPieces(words, steps);
  expect(tokenizer.encode("a <go> b")).toEqual([1, 9, 2]);
  expect(tokenizer.encode("<go>")).toEqual([9]);
  expect(tokenizer.encode("<go>b a<go> a<go>b")).toEqual([3, 4, 5]);
  expect(tokenizer.encode("<x><go><go>b a<x>b")).toEqual([10, 9, 3, 1, 10, 2]);
});

test("Metaspace that never puts a space before a text takes none away", () => {
  const vocab: [string, number][] = [["<unk>", 0], ["▁", -1], ["a", -1]]; // prettier-ignore
  const decode = (prepend_scheme: string): string => {
    const decoder = { type: "Metaspace", replacement: "▁", prepend_scheme, split: true };
    const tokenizer = { model: { type: "Unigram", unk_id: 0, vocab }, decoder };
    return createTokenizer({ tokenizer }).decode([1, 2, 1]);
  };
  expect(decode("never")).toBe(" a ");
  expect(decode("always")).toBe("a ");
});
