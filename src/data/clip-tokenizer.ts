import { LorikeetError } from "../errors.ts";
import type { Tokenizer } from "./tokenizer.ts";

const START = "<|startoftext|>";
/** The token that ends a caption, and fills it up. */
export const CLIP_END = "<|endoftext|>";

/** Lower case, one space, and words, digits and signs apart. */
const SPLITTING = {
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "NFC" },
      { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
      { type: "Lowercase" },
    ],
  },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      {
        type: "Split",
        pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" },
        behavior: "Removed",
        invert: true,
      },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    ],
  },
} as const;

/**
 * The tokenizer.json that CLIP's `vocab.json` and `merges.txt` mean: lower case, words with their ends marked, byte pairs.
 * https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py
 * @throws LorikeetError `tokenizer` when the start or end token is not in the vocabulary
 */
export function clipTokenizerJson(
  vocabulary: Readonly<Record<string, number>>,
  merges: string,
): Record<string, unknown> {
  const [start, end] = [vocabulary[START], vocabulary[CLIP_END]];
  if (start === undefined || end === undefined)
    throw new LorikeetError(
      "tokenizer",
      `Expected vocab.json to hold ${START} and ${CLIP_END}, it does not`,
      { hint: "Give the tokenizer folder of the model." },
    );
  const lines = merges.split("\n").map((line) => line.trim());
  const pairs = lines.filter((line) => line !== "" && !line.startsWith("#version"));
  const special = [
    { id: start, content: START },
    { id: end, content: CLIP_END },
  ];
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  return {
    version: "1.0",
    added_tokens: special.map((token) => ({ ...token, ...flags, special: true })),
    ...SPLITTING,
    post_processor: {
      type: "RobertaProcessing",
      sep: [CLIP_END, end],
      cls: [START, start],
      trim_offsets: false,
      add_prefix_space: false,
    },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      unk_token: CLIP_END,
      continuing_subword_prefix: "",
      end_of_word_suffix: "</w>",
      fuse_unk: false,
      byte_fallback: false,
      vocab: vocabulary,
      merges: pairs.map((pair) => pair.split(" ")),
    },
  };
}

/** Ids of a caption: cut to `length` with its end token kept, filled up with `padId`. `isCut`: it was too long. */
export function encodeCaption(
  tokenizer: Tokenizer,
  text: string,
  { length, padId }: { length: number; padId: number },
): { ids: number[]; isCut: boolean } {
  const ids = tokenizer.encode(text);
  const isCut = ids.length > length;
  const kept = isCut ? [...ids.slice(0, length - 1), ids.at(-1)!] : ids;
  return { ids: [...kept, ...new Array<number>(length - kept.length).fill(padId)], isCut };
}
