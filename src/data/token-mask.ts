import type { Span } from "./chat-template.ts";
import { byteOffsets, tokenEnds } from "./token-offsets.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Token ids of a text, and which of them stand in its spans. */
export interface MaskedTokens {
  readonly ids: number[];
  /** 1 where a token has at least one byte in a span. */
  readonly mask: Uint8Array;
}

/** Encodes `text` as a whole and marks the tokens of `spans` (in order, apart from each other). */
export function encodeWithSpans(
  tokenizer: Tokenizer,
  text: string,
  spans: readonly Span[],
  options: { addSpecialTokens: boolean },
): MaskedTokens {
  const ids = tokenizer.encode(text, options);
  const mask = new Uint8Array(ids.length);
  const ends = tokenEnds(tokenizer, text, ids);
  for (const { start, end } of spans) {
    const range = ends
      ? tokensOfBytes(ends, byteOffsets(text, [start, end]))
      : [start, end].map((position) =>
          sharedStart(tokenizer, text.slice(0, position), ids, options),
        );
    mask.fill(1, range[0], range[1]);
  }
  return { ids, mask };
}

function tokensOfBytes(ends: Int32Array, [start, end]: readonly number[]): number[] {
  let first = 0;
  while (first < ends.length && ends[first]! <= start!) first++;
  let last = first;
  while (last < ends.length && (last === 0 ? 0 : ends[last - 1]!) < end!) last++;
  return [first, last];
}

/** How many tokens the beginning of a text and the whole text share: where normalizers hide the bytes. */
function sharedStart(
  tokenizer: Tokenizer,
  beginning: string,
  ids: readonly number[],
  options: { addSpecialTokens: boolean },
): number {
  const alone = tokenizer.encode(beginning, options);
  let count = 0;
  while (count < alone.length && alone[count] === ids[count]) count++;
  return count;
}
