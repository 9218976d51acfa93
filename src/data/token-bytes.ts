/** The bytes that a token stands for in decoded text, or undefined for an id that no token has. */
export type TokenBytes = (id: number) => Uint8Array | undefined;

/** How a vocabulary spells bytes: GPT-2's byte alphabet, SentencePiece's `▁` and `<0x0A>`, or neither. */
export type ByteSpelling = "byte-level" | "sentencepiece";

const utf8 = new TextEncoder();

/** The spelling that a tokenizer.json's `decoder` undoes, or undefined when token bytes can't be told from it. */
export function byteSpelling(decoder: unknown): ByteSpelling | undefined {
  const types = decoderTypes(decoder);
  if (types.includes("ByteLevel")) return "byte-level";
  if (types.includes("ByteFallback") || types.includes("Metaspace")) return "sentencepiece";
  return undefined;
}

function decoderTypes(decoder: unknown): string[] {
  if (typeof decoder !== "object" || decoder === null) return [];
  const { type, decoders } = decoder as { type?: unknown; decoders?: unknown };
  const inner = Array.isArray(decoders) ? decoders.flatMap(decoderTypes) : [];
  return typeof type === "string" ? [type, ...inner] : inner;
}

/** The bytes of token `text` of a vocabulary in `spelling`; added tokens stand for themselves. */
export function bytesOfToken(text: string, spelling: ByteSpelling, isAdded: boolean): Uint8Array {
  if (isAdded) return utf8.encode(text);
  if (spelling === "byte-level") return byteLevelBytes(text) ?? utf8.encode(text);
  const fallback = /^<0x([0-9A-Fa-f]{2})>$/.exec(text);
  if (fallback) return Uint8Array.of(parseInt(fallback[1]!, 16));
  return utf8.encode(text.replaceAll("▁", " "));
}

/** Undefined when a character is outside the alphabet: such a token stands for itself. */
function byteLevelBytes(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const byte = byteOfChar.get(text.charCodeAt(i));
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}

/**
 * GPT-2's alphabet: printable Latin-1 stands for its own byte, the other 68 bytes follow from U+0100 on.
 * https://github.com/openai/gpt-2/blob/master/src/encoder.py
 */
const byteOfChar: ReadonlyMap<number, number> = (() => {
  const isPrintable = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad);
  const map = new Map<number, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) map.set(isPrintable(byte) ? byte : next++, byte);
  return map;
})();
