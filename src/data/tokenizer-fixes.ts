import {
  type LibraryAddedToken,
  type LibraryDecoder,
  type LibraryNormalizer,
  type LibraryPreTokenizer,
  type LibraryTokenizer,
  tokenizers,
} from "./tokenizer-library.ts";

// Rust's regexes and char methods are Unicode-aware where JavaScript's `\s`, `\d`, `\w` are not:
// `\s` lacks U+0085 and has U+FEFF, `\d` and `\w` are ASCII.
const S = "\\p{White_Space}";
const W = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}";
const byteLevel = new RegExp(
  `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${S}\\p{L}\\p{N}]+|${S}+(?!\\P{White_Space})|${S}+`,
  "gu",
);
const digitRuns = /\P{N}+|\p{N}+/gu;
const singleDigits = /\P{N}+|\p{N}/gu;
const words = new RegExp(`[${W}]+|[^${W}${S}]+`, "gu");
const blackRuns = /\P{White_Space}+/gu;
const bertPunctuation = "\\p{P}\\u0021-\\u002F\\u003A-\\u0040\\u005B-\\u0060\\u007B-\\u007E";
const bertWords = new RegExp(`[^${S}${bertPunctuation}]+|[${bertPunctuation}]`, "gu");

/** Makes the library's pre-tokenizers split as the Rust implementation does, in place. */
export function matchRustSplitting(step: LibraryPreTokenizer): void {
  switch (step.constructor) {
    case tokenizers.SequencePreTokenizer:
      for (const part of step.tokenizers ?? []) if (part) matchRustSplitting(part);
      break;
    case tokenizers.ByteLevelPreTokenizer:
      step.pattern = byteLevel;
      break;
    case tokenizers.DigitsPreTokenizer:
      step.pattern = step.config?.individual_digits ? singleDigits : digitRuns;
      break;
    case tokenizers.WhitespacePreTokenizer:
      step.pre_tokenize_text = (text) => text.match(words) ?? [];
      break;
    case tokenizers.WhitespaceSplitPreTokenizer:
      step.pre_tokenize_text = (text) => text.match(blackRuns) ?? [];
      break;
    case tokenizers.BertPreTokenizer:
      step.pre_tokenize_text = (text) => text.match(bertWords) ?? [];
      break;
  }
}

/** Makes the library's normalizers work character by character, as the Rust implementation does, in place. */
export function matchRustNormalizing(step: LibraryNormalizer): void {
  for (const part of step.normalizers ?? []) if (part) matchRustNormalizing(part);
  if (step.constructor === tokenizers.LowercaseNormalizer) step.normalize = lowercase;
  if (step.constructor !== tokenizers.BertNormalizer) return;
  const normalize = step.normalize.bind(step);
  if (step.config?.lowercase) step.normalize = (text) => normalize(lowercase(text));
  step.tokenize_chinese_chars = (text) => text.replace(ideographs, " $& ");
}

// the library looks at UTF-16 units, and so at none past U+FFFF
const ideographs =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;

/** A sigma at a word's end stays one: letters know nothing of their neighbours. */
function lowercase(text: string): string {
  return Array.from(text, (letter) => letter.toLowerCase()).join("");
}

/** Makes added tokens that are whole words (`single_word`) be found as such alone, in place. */
export function matchRustAddedTokens(library: LibraryTokenizer): void {
  if (!library.added_tokens.some((token) => token.single_word)) return;
  const find = (part: string): LibraryAddedToken | undefined => library.added_tokens_map.get(part);
  for (const splitter of [library.splitter_unnormalized, library.splitter_normalized]) {
    const split = splitter.split.bind(splitter);
    splitter.split = (text) => joinWithin(split(text), find);
  }
}

const startsWord = new RegExp(`^[${W}]`, "u");
const endsWord = new RegExp(`[${W}]$`, "u");

/** Joins the tokens among `parts` that have to be whole words, but stand within one, with the text around them. */
function joinWithin(
  parts: string[],
  find: (part: string) => LibraryAddedToken | undefined,
): string[] {
  const joined: string[] = [];
  let isText = false;
  for (const [i, part] of parts.entries()) {
    const isWithin = endsWord.test(parts[i - 1] ?? "") || startsWord.test(parts[i + 1] ?? "");
    const token = find(part);
    const isNext = token === undefined || (token.single_word && isWithin);
    if (isNext && isText) joined.push(`${joined.pop() ?? ""}${part}`);
    else joined.push(part);
    isText = isNext;
  }
  return joined;
}

/** Makes the library's byte-fallback decoder keep U+FEFF and replace invalid bytes as Rust's does, in place. */
export function matchRustDecoding(step: LibraryDecoder): void {
  for (const part of step.decoders ?? []) matchRustDecoding(part);
  if (step.constructor === tokenizers.ByteFallbackDecoder) step.decode_chain = joinByteTokens;
  if (step.constructor === tokenizers.MetaspaceDecoder && step.config?.prepend_scheme === "never")
    step.decode_chain = (tokens) => tokens.map((token) => token.replaceAll("▁", " "));
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function joinByteTokens(tokens: string[]): string[] {
  const texts: string[] = [];
  let run: number[] = [];
  const closeRun = (): void => {
    if (run.length > 0) texts.push(textOfRun(Uint8Array.from(run)));
    run = [];
  };
  for (const token of tokens) {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
    if (byte !== undefined) run.push(parseInt(byte, 16));
    else {
      closeRun();
      texts.push(token);
    }
  }
  closeRun();
  return texts;
}

/** A run that is not UTF-8 as a whole becomes one U+FFFD a byte. */
function textOfRun(bytes: Uint8Array): string {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    return "\ufffd".repeat(bytes.length);
  }
}
