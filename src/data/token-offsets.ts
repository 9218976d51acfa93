import type { Tokenizer } from "./tokenizer.ts";

const SPACE = 0x20;
const utf8 = new TextEncoder();

/** Bytes of `text` in UTF-8 before each of the UTF-16 `positions`. */
export function byteOffsets(text: string, positions: readonly number[]): number[] {
  return positions.map((position) => utf8.encode(text.slice(0, position)).length);
}

/**
 * Where each of `ids` ends in `text`, in bytes of UTF-8, or undefined when the tokens' bytes are not those of the
 * text (a normalizer changed it). Tokens that the post-processor added have no length.
 */
export function tokenEnds(
  tokenizer: Tokenizer,
  text: string,
  ids: readonly number[],
): Int32Array | undefined {
  const { tokenBytes } = tokenizer;
  if (!tokenBytes) return undefined;
  const bytes = utf8.encode(text);
  const ends = new Int32Array(ids.length);
  let at = 0;
  for (const [i, id] of ids.entries()) {
    const token = tokenBytes(id);
    if (!token) return undefined;
    const end = matchToken(bytes, at, token) ?? (tokenizer.isSpecial(id) ? at : undefined);
    if (end === undefined) return undefined;
    ends[i] = at = end;
  }
  return at === bytes.length ? ends : undefined;
}

/** Where `token` ends when it stands in `bytes` at `at`: as it is, without the space that SentencePiece puts before a text, or after white space that an added token swallows. */
function matchToken(bytes: Uint8Array, at: number, token: Uint8Array): number | undefined {
  if (hasAt(bytes, at, token)) return at + token.length;
  if (token[0] === SPACE && hasAt(bytes, at, token.subarray(1))) return at + token.length - 1;
  let start = at;
  while (bytes[start] === SPACE || (bytes[start]! >= 9 && bytes[start]! <= 13)) start++;
  return start > at && hasAt(bytes, start, token) ? start + token.length : undefined;
}

function hasAt(bytes: Uint8Array, at: number, token: Uint8Array): boolean {
  if (at + token.length > bytes.length) return false;
  for (let i = 0; i < token.length; i++) if (bytes[at + i] !== token[i]) return false;
  return true;
}
