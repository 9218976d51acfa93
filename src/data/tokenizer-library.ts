// The package's type declarations import each other without extensions, which module resolution "nodenext" does not
// follow: its exports are missing or `any`. This is the part in use, typed by hand (0.2.0).
import * as library from "@huggingface/tokenizers";

/** A tokenizer of the library. */
export interface LibraryTokenizer {
  normalizer: LibraryNormalizer | null;
  pre_tokenizer: LibraryPreTokenizer | null;
  decoder: LibraryDecoder | null;
  added_tokens: LibraryAddedToken[];
  added_tokens_map: Map<string, LibraryAddedToken>;
  splitter_unnormalized: LibrarySplitter;
  splitter_normalized: LibrarySplitter;
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(ids: number[], options: { clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
  get_added_tokens_decoder(): Map<number, { id: number; content: string; special: boolean }>;
  get_vocab(): Map<string, number>;
}

/** A token that is found in text before it is cut into words. */
export interface LibraryAddedToken {
  readonly single_word: boolean;
}

/** Cuts text at added tokens. */
export interface LibrarySplitter {
  split(text: string): string[];
}

/** A step that rewrites text before it is cut. */
export interface LibraryNormalizer {
  config?: { lowercase?: boolean };
  normalizers?: (LibraryNormalizer | null)[];
  normalize(text: string): string;
  tokenize_chinese_chars?(text: string): string;
}

/** A step that cuts text into words before the model merges within each. */
export interface LibraryPreTokenizer {
  pattern?: RegExp | null;
  config?: { individual_digits?: boolean };
  tokenizers?: (LibraryPreTokenizer | null)[];
  pre_tokenize_text(text: string): string[];
}

/** A step that turns the spellings of tokens into text. */
export interface LibraryDecoder {
  config?: { prepend_scheme?: string };
  decoders?: LibraryDecoder[];
  decode_chain(tokens: string[]): string[];
}

type Constructor<T, Args extends unknown[]> = new (...args: Args) => T;

/** The library's classes. */
export const tokenizers: {
  readonly Tokenizer: Constructor<LibraryTokenizer, [tokenizer: object, config: object]>;
  readonly ByteFallbackDecoder: Constructor<LibraryDecoder, [object]>;
  readonly SequenceDecoder: Constructor<LibraryDecoder, [object]>;
  readonly MetaspaceDecoder: Constructor<LibraryDecoder, [object]>;
  readonly BertNormalizer: Constructor<LibraryNormalizer, [object]>;
  readonly LowercaseNormalizer: Constructor<LibraryNormalizer, [object]>;
  readonly BertPreTokenizer: Constructor<LibraryPreTokenizer, []>;
  readonly ByteLevelPreTokenizer: Constructor<LibraryPreTokenizer, [object]>;
  readonly DigitsPreTokenizer: Constructor<LibraryPreTokenizer, [object]>;
  readonly SequencePreTokenizer: Constructor<LibraryPreTokenizer, [object]>;
  readonly WhitespacePreTokenizer: Constructor<LibraryPreTokenizer, [object]>;
  readonly WhitespaceSplitPreTokenizer: Constructor<LibraryPreTokenizer, []>;
} = library as never;
