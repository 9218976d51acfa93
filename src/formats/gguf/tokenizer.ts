import { LorikeetError } from "../../errors.ts";
import {
  getBoolean,
  getNumber,
  getNumbers,
  getString,
  getStrings,
  type GgufMetadata,
} from "./metadata.ts";
import { preTokenizing } from "./pre-tokenizers.ts";
import { mergesOfScores } from "./sentencepiece.ts";

type Json = Record<string, unknown>;

/** The files that a Hugging Face folder would hold, made from a GGUF file's metadata. */
export interface GgufTokenizer {
  /** tokenizer.json */
  readonly tokenizer: Json;
  /** tokenizer_config.json: special tokens and chat template. */
  readonly config: Json;
  /** generation_config.json: every id that ends an answer. */
  readonly generationConfig: Json;
}

/** llama.cpp's kinds of tokens. */
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const BYTE = 6;

/** Control tokens that end a turn, whether or not the file names them so. */
const TURN_ENDS = [
  "<|eot_id|>",
  "<|im_end|>",
  "<|end|>",
  "<end_of_turn>",
  "<|eom_id|>",
  "<|endoftext|>",
];

interface Vocabulary {
  readonly metadata: GgufMetadata;
  readonly tokens: readonly string[];
  readonly types: readonly number[];
}

/**
 * The tokenizer in a GGUF file: byte-level BPE (`gpt2`) or SentencePiece BPE (`llama`).
 * @throws LorikeetError `unsupported-tokenizer`, `corrupt-gguf`
 */
export function tokenizerFromGguf(metadata: GgufMetadata): GgufTokenizer {
  const model = getString(metadata, "tokenizer.ggml.model");
  const tokens = getStrings(metadata, "tokenizer.ggml.tokens");
  if (model === undefined || tokens === undefined)
    throw corrupt("tokenizer.ggml.model and tokenizer.ggml.tokens", "they are missing");
  const types = getNumbers(metadata, "tokenizer.ggml.token_type") ?? tokens.map(() => 1);
  if (types.length !== tokens.length)
    throw corrupt(`${tokens.length} token types`, `got ${types.length}`);
  const vocabulary = { metadata, tokens, types };
  if (model === "gpt2") return assemble(vocabulary, byteLevel(vocabulary));
  if (model === "llama") return assemble(vocabulary, sentencePiece(vocabulary));
  throw new LorikeetError(
    "unsupported-tokenizer",
    `Expected tokenizer.ggml.model to be gpt2 or llama, got "${model}"`,
    { hint: "Use the model's Hugging Face folder, which has its tokenizer.json." },
  );
}

/** What differs between the kinds of tokenizers. */
interface Parts {
  readonly normalizer: Json | null;
  readonly preTokenizer: Json | null;
  readonly decoder: Json;
  readonly model: Json;
  readonly addsBos: boolean;
}

function byteLevel({ metadata, tokens }: Vocabulary): Parts {
  const merges = getStrings(metadata, "tokenizer.ggml.merges");
  if (merges === undefined) throw corrupt("tokenizer.ggml.merges", "it is missing");
  const { preTokenizer, normalizer, ignoreMerges, addsBos } = preTokenizing(
    getString(metadata, "tokenizer.ggml.pre") ?? "default",
  );
  return {
    normalizer,
    preTokenizer,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: bpe(tokens, merges.map(splitMerge), { ignore_merges: ignoreMerges }),
    addsBos,
  };
}

function splitMerge(merge: string): [string, string] {
  const parts = merge.split(" ");
  if (parts.length !== 2)
    throw corrupt("each merge to be two tokens", `got ${JSON.stringify(merge)}`);
  return parts as [string, string];
}

function sentencePiece({ metadata, tokens, types }: Vocabulary): Parts {
  const scores = getNumbers(metadata, "tokenizer.ggml.scores");
  if (scores?.length !== tokens.length)
    throw corrupt(`${tokens.length} token scores`, `got ${scores?.length ?? "none"}`);
  // tokens of the user's own are stored with plain spaces
  const pieces = tokens.map((token, id) => (types[id] === USER_DEFINED ? token.replaceAll(" ", "▁") : token)); // prettier-ignore
  const isText = (id: number): boolean => ![UNKNOWN, CONTROL, BYTE].includes(types[id]!);
  const unknown = getNumber(metadata, "tokenizer.ggml.unknown_token_id") ?? types.indexOf(UNKNOWN);
  const prefixed = getBoolean(metadata, "tokenizer.ggml.add_space_prefix") ?? true;
  const replace = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const prepend = { type: "Prepend", prepend: "▁" };
  const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
  const decoders = [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
    ...(prefixed ? [strip] : []),
  ];
  return {
    normalizer: prefixed ? { type: "Sequence", normalizers: [prepend, replace] } : replace,
    preTokenizer: null,
    decoder: { type: "Sequence", decoders },
    model: bpe(pieces, mergesOfScores(pieces, scores, isText), {
      unk_token: pieces[unknown] ?? null,
      fuse_unk: true,
      byte_fallback: types.includes(BYTE),
    }),
    addsBos: true,
  };
}

function bpe(tokens: readonly string[], merges: readonly [string, string][], options: Json): Json {
  // without a prototype, and defined one by one: a token may be called __proto__
  const vocab = Object.create(null) as Record<string, number>;
  tokens.forEach((token, id) => (vocab[token] ??= id));
  return {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    ...options,
    vocab,
    merges,
  };
}

function assemble(vocabulary: Vocabulary, parts: Parts): GgufTokenizer {
  const { metadata, tokens, types } = vocabulary;
  const idOf = (name: string): number | undefined => getNumber(metadata, `tokenizer.ggml.${name}_token_id`); // prettier-ignore
  const token = (name: string): string | null => tokens[idOf(name) ?? -1] ?? null;
  const addBos = getBoolean(metadata, "tokenizer.ggml.add_bos_token") ?? parts.addsBos;
  const addEos = getBoolean(metadata, "tokenizer.ggml.add_eos_token") ?? false;
  const special = tokens.flatMap((content, id) => {
    const isSpecial = types[id] === CONTROL || types[id] === UNKNOWN;
    if (!isSpecial && types[id] !== USER_DEFINED) return [];
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
    return [{ id, content, ...flags, special: isSpecial }];
  });
  const frame = { bos: addBos ? idOf("bos") : undefined, eos: addEos ? idOf("eos") : undefined };
  const template = getString(metadata, "tokenizer.chat_template");
  return {
    tokenizer: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: special,
      normalizer: parts.normalizer,
      pre_tokenizer: parts.preTokenizer,
      post_processor: framing(tokens, frame),
      decoder: parts.decoder,
      model: parts.model,
    },
    config: {
      tokenizer_class: "PreTrainedTokenizerFast",
      bos_token: token("bos"),
      eos_token: token("eos"),
      pad_token: token("padding"),
      unk_token: token("unknown"),
      add_bos_token: addBos,
      add_eos_token: addEos,
      clean_up_tokenization_spaces: false,
      ...(template === undefined ? {} : { chat_template: template }),
    },
    generationConfig: generationConfig(vocabulary, idOf),
  };
}

/** A post-processor that puts bos before and eos after each text; null when neither is wanted. */
function framing(
  tokens: readonly string[],
  { bos, eos }: { bos: number | undefined; eos: number | undefined },
): Json | null {
  if (bos === undefined && eos === undefined) return null;
  const ids = [bos, eos].filter((id) => id !== undefined);
  const around = (sequence: "A" | "B", typeId: number): Json[] => {
    const part = (id: number | undefined): Json[] =>
      id === undefined ? [] : [{ SpecialToken: { id: tokens[id], type_id: typeId } }];
    return [...part(bos), { Sequence: { id: sequence, type_id: typeId } }, ...part(eos)];
  };
  return {
    type: "TemplateProcessing",
    single: around("A", 0),
    pair: [...around("A", 0), ...around("B", 1)],
    special_tokens: Object.fromEntries(
      ids.map((id) => [tokens[id], { id: tokens[id], ids: [id], tokens: [tokens[id]] }]),
    ),
  };
}

function generationConfig(
  { tokens, types }: Vocabulary,
  idOf: (name: string) => number | undefined,
): Json {
  const ends = tokens.flatMap((text, id) => (types[id] === CONTROL && TURN_ENDS.includes(text) ? [id] : [])); // prettier-ignore
  const named = ["eos", "eot", "eom"].map(idOf).filter((id) => id !== undefined);
  return {
    bos_token_id: idOf("bos") ?? null,
    eos_token_id: [...new Set([...named, ...ends])],
    pad_token_id: idOf("padding") ?? null,
  };
}

function corrupt(expected: string, got: string): LorikeetError {
  return new LorikeetError(
    "corrupt-gguf",
    `Expected the GGUF tokenizer to have ${expected}, ${got}`,
    {
      hint: "Convert the model to GGUF again with a current converter.",
    },
  );
}
