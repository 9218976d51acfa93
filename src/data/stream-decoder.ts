import type { TokenBytes } from "./token-bytes.ts";

/** Turns token ids into text one by one; never gives half a character. */
export interface StreamDecoder {
  /** The text that `id` completes; empty while a character is unfinished. */
  push(id: number): string;
  /** What is left: an unfinished character becomes U+FFFD. */
  flush(): string;
}

/** A decoder for vocabularies whose tokens are bytes: what it gives, joined, is the decoding of all ids. */
export function streamBytes(
  bytesOf: TokenBytes,
  isSkipped: (id: number) => boolean,
): StreamDecoder {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return {
    push(id) {
      const bytes = isSkipped(id) ? undefined : bytesOf(id);
      return bytes ? decoder.decode(bytes, { stream: true }) : "";
    },
    flush: () => decoder.decode(),
  };
}

/** A character takes at most four tokens of one byte, so text that still ends in U+FFFD after these is final. */
const LONGEST_CHARACTER = 4;

/**
 * A decoder for any vocabulary: decodes a short window twice, without and with the new ids, and gives the
 * difference, as `tokenizers`' DecodeStream does.
 */
export function streamWindow(decode: (ids: readonly number[]) => string): StreamDecoder {
  let shown: number[] = []; // ids whose text was given; kept because decoders look at the token before
  let waiting: number[] = [];
  const take = (): string => {
    const before = shown.length === 0 ? "" : decode(shown);
    const text = decode([...shown, ...waiting]).slice(before.length);
    if (text !== "") [shown, waiting] = [waiting, []];
    return text;
  };
  return {
    push(id) {
      waiting.push(id);
      const isUnfinished = decode([...shown, ...waiting]).endsWith("\ufffd");
      return isUnfinished && waiting.length < LONGEST_CHARACTER ? "" : take();
    },
    flush: () => (waiting.length === 0 ? "" : take()),
  };
}
