/** @file Text in PNG files: `tEXt` and `iTXt` chunks. https://www.w3.org/TR/png-3/#11textinfo */
import { LorikeetError } from "../errors.ts";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const HEADER_END = 33; // signature and IHDR

/**
 * `png` with `texts` (by keyword) behind its header, as `tEXt`, or `iTXt` where a text is beyond Latin-1.
 * @throws LorikeetError `corrupt-png`
 */
export function addPngText(png: Uint8Array, texts: Readonly<Record<string, string>>): Uint8Array {
  checkSignature(png);
  const chunks = Object.entries(texts).map(([keyword, text]) => textChunk(keyword, text));
  const length = chunks.reduce((sum, chunk) => sum + chunk.length, png.length);
  const out = new Uint8Array(length);
  out.set(png.subarray(0, HEADER_END));
  let at = HEADER_END;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  out.set(png.subarray(HEADER_END), at);
  return out;
}

/** The texts of `png` by keyword; compressed ones are left out. @throws LorikeetError `corrupt-png` */
export function readPngText(png: Uint8Array): Record<string, string> {
  checkSignature(png);
  const view = new DataView(png.buffer, png.byteOffset, png.length);
  const texts: Record<string, string> = {};
  for (let at = 8; at + 12 <= png.length;) {
    const length = view.getUint32(at);
    const type = latin1(png.subarray(at + 4, at + 8));
    const data = png.subarray(at + 8, at + 8 + length);
    const end = data.indexOf(0);
    const keyword = latin1(data.subarray(0, end));
    if (type === "tEXt") texts[keyword] = latin1(data.subarray(end + 1));
    if (type === "iTXt" && data[end + 1] === 0) {
      const language = data.indexOf(0, end + 3);
      const translated = data.indexOf(0, language + 1);
      texts[keyword] = new TextDecoder().decode(data.subarray(translated + 1));
    }
    at += 12 + length;
  }
  return texts;
}

function textChunk(keyword: string, text: string): Uint8Array {
  const codes = Array.from(text, (letter) => letter.codePointAt(0)!);
  const name = Array.from(keyword, (letter) => letter.codePointAt(0)!);
  if (codes.every((code) => code < 256)) return chunk("tEXt", [...name, 0, ...codes]);
  return chunk("iTXt", [...name, 0, 0, 0, 0, 0, ...new TextEncoder().encode(text)]);
}

function chunk(type: string, data: readonly number[]): Uint8Array {
  const out = new Uint8Array(12 + data.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) out[4 + i] = type.charCodeAt(i);
  out.set(data, 8);
  view.setUint32(8 + data.length, crc32(out.subarray(4, 8 + data.length)));
  return out;
}

/** The CRC that PNG uses (ISO 3309). */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

function latin1(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

function checkSignature(png: Uint8Array): void {
  if (png.length >= HEADER_END && SIGNATURE.every((byte, i) => png[i] === byte)) return;
  throw new LorikeetError("corrupt-png", "Expected a PNG image, got other bytes", {
    hint: "Give an image that was saved as PNG.",
  });
}
