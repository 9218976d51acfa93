import { LorikeetError } from "../errors.ts";
import { type SpecialTokens, specialTokens, tokenText } from "./special-tokens.ts";
import { streamBytes, type StreamDecoder, streamWindow } from "./stream-decoder.ts";
import { byteSpelling, bytesOfToken, type TokenBytes } from "./token-bytes.ts";
import {
  matchRustAddedTokens,
  matchRustDecoding,
  matchRustNormalizing,
  matchRustSplitting,
} from "./tokenizer-fixes.ts";
import { modelFault } from "./tokenizer-faults.ts";
import { type LibraryTokenizer, tokenizers } from "./tokenizer-library.ts";

type Json = Readonly<Record<string, unknown>>;

/** The parsed files that make a tokenizer; only tokenizer.json is needed. */
export interface TokenizerFiles {
  /** tokenizer.json */
  readonly tokenizer: unknown;
  /** tokenizer_config.json: names the special tokens. */
  readonly config?: Json | undefined;
  /** generation_config.json: ids that end generation. */
  readonly generationConfig?: Json | undefined;
  /** config.json: special ids where the others name none, and how many tokens the model knows. */
  readonly modelConfig?: Json | undefined;
}

/** Text to token ids and back, equal to Python's `tokenizers` on the same files. */
export interface Tokenizer {
  /** Largest id + 1; a model's embedding may have more rows. */
  readonly vocabSize: number;
  readonly specials: SpecialTokens;
  /**
   * Ids of `text`. `addSpecialTokens` (default true) adds what the post-processor adds, such as a first `<s>`.
   * @throws LorikeetError `tokenizer` for a token that the model has no row for
   */
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[];
  /** Text of `ids`; ids that no token has are left out. Spaces are never cleaned up. */
  decode(ids: Iterable<number>, options?: { skipSpecialTokens?: boolean }): string;
  /** A decoder for text that arrives token by token. */
  stream(options?: { skipSpecialTokens?: boolean }): StreamDecoder;
  /** Id of the token spelled `token` in the vocabulary, if there is one. */
  tokenId(token: string): number | undefined;
  /** Spelling of `id` in the vocabulary, if there is one. */
  token(id: number): string | undefined;
  /** Whether `id` is a special token (control, not text). */
  isSpecial(id: number): boolean;
  /** Spellings of the tokens that are found in text before it is split: special and other added tokens. */
  readonly addedTokens: readonly string[];
  /** Bytes of each token, or undefined when the vocabulary's spelling does not tell (WordPiece). */
  readonly tokenBytes: TokenBytes | undefined;
}

/**
 * A tokenizer from its parsed files.
 * @throws LorikeetError `tokenizer` when tokenizer.json is not one or uses an unknown component
 */
export function createTokenizer(files: TokenizerFiles): Tokenizer {
  const library = openLibrary(files);
  const json = files.tokenizer as Json;
  const added = library.get_added_tokens_decoder();
  const special = new Set([...added.values()].filter((t) => t.special).map((t) => t.id));
  const spelling = byteSpelling(json["decoder"]);
  const tokenBytes = spelling && cachedBytes(library, spelling, new Set(added.keys()));
  const rows = Number(files.modelConfig?.["vocab_size"] ?? Infinity);
  const isKnown = (id: number): boolean => library.id_to_token(id) !== undefined;

  const decodeByLibrary = (ids: readonly number[], skip: boolean): string => {
    const shown = ids.filter((id) => isKnown(id) && !(skip && special.has(id)));
    return shown.length === 0 ? "" : library.decode(shown, { clean_up_tokenization_spaces: false });
  };
  const stream = (skip: boolean): StreamDecoder =>
    spelling === "byte-level" && tokenBytes
      ? streamBytes(tokenBytes, (id) => skip && special.has(id))
      : streamWindow((ids) => decodeByLibrary(ids, skip));

  return {
    vocabSize: largestId(library) + 1,
    specials: specialTokens(files, (token) => library.token_to_id(token)),
    encode(text, { addSpecialTokens = true } = {}) {
      const { ids } = library.encode(text, { add_special_tokens: addSpecialTokens });
      for (const id of ids) if (id >= rows) throw beyond(id, library.id_to_token(id), rows);
      return ids;
    },
    decode(ids, { skipSpecialTokens = false } = {}) {
      if (spelling !== "byte-level") return decodeByLibrary([...ids], skipSpecialTokens);
      const decoder = stream(skipSpecialTokens);
      let text = "";
      for (const id of ids) text += decoder.push(id);
      return text + decoder.flush();
    },
    stream: ({ skipSpecialTokens = false } = {}) => stream(skipSpecialTokens),
    tokenId: (token) => library.token_to_id(token),
    token: (id) => library.id_to_token(id),
    isSpecial: (id) => special.has(id),
    addedTokens: [...added.values()].map((token) => token.content),
    tokenBytes,
  };
}

function openLibrary({ tokenizer, config = {} }: TokenizerFiles): LibraryTokenizer {
  const hint =
    "Give the tokenizer.json that belongs to the model; download it again if it was cut off.";
  if (typeof tokenizer !== "object" || tokenizer === null || !("model" in tokenizer))
    throw new LorikeetError(
      "tokenizer",
      'Expected tokenizer.json to be an object with a "model", got something else',
      { hint },
    );
  const fault = modelFault(tokenizer.model);
  if (fault !== undefined)
    throw new LorikeetError(
      "tokenizer",
      `Expected a tokenizer.json of a supported kind, got ${fault}`,
      { hint },
    );
  const empty = { added_tokens: [], normalizer: null, pre_tokenizer: null };
  const json = { ...empty, post_processor: null, decoder: null, ...tokenizer };
  const names = Object.entries(config).map(([key, value]) => [key, tokenText(value) ?? value]);
  try {
    const library = new tokenizers.Tokenizer(json, Object.fromEntries(names) as object);
    if (library.normalizer) matchRustNormalizing(library.normalizer);
    matchRustAddedTokens(library);
    if (library.pre_tokenizer) matchRustSplitting(library.pre_tokenizer);
    if (library.decoder) matchRustDecoding(library.decoder);
    return library;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new LorikeetError(
      "tokenizer",
      `Expected a tokenizer.json of a supported kind, got: ${reason}`,
      { hint, cause },
    );
  }
}

function beyond(id: number, token: string | undefined, rows: number): LorikeetError {
  return new LorikeetError(
    "tokenizer",
    `Expected tokens that the model knows (ids below ${rows}), got ${JSON.stringify(token)} with id ${id}`,
    { hint: "Give the tokenizer.json that belongs to the model: this one has more tokens than config.json's vocab_size." }, // prettier-ignore
  );
}

function cachedBytes(
  library: LibraryTokenizer,
  spelling: NonNullable<ReturnType<typeof byteSpelling>>,
  added: ReadonlySet<number>,
): TokenBytes {
  const cache = new Map<number, Uint8Array | undefined>();
  return (id) => {
    if (cache.has(id)) return cache.get(id);
    const text = library.id_to_token(id);
    const bytes = text === undefined ? undefined : bytesOfToken(text, spelling, added.has(id));
    cache.set(id, bytes);
    return bytes;
  };
}

function largestId(library: LibraryTokenizer): number {
  let largest = -1;
  for (const id of library.get_vocab().values()) largest = Math.max(largest, id);
  return largest;
}
