import { type LibraryDecoder, type LibraryPreTokenizer, tokenizers } from "./tokenizer-library.ts";

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
  }
}

/** Makes the library's byte-fallback decoder keep U+FEFF and replace invalid bytes as Rust's does, in place. */
export function matchRustDecoding(step: LibraryDecoder): void {
  for (const part of step.decoders ?? []) matchRustDecoding(part);
  if (step.constructor === tokenizers.ByteFallbackDecoder) step.decode_chain = joinByteTokens;
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
