import { LorikeetError } from "../../errors.ts";
import type { Place } from "./source-row.ts";

/** A line without its end, or why it is not text. */
export type Line =
  | { readonly place: Place; readonly text: string }
  | { readonly place: Place; readonly fault: LorikeetError };

const LF = 0x0a;
const CR = 0x0d;

/**
 * The lines of a UTF-8 file (LF or CRLF; a byte-order mark is dropped), each decoded by itself, so that one wrong
 * byte spoils one line.
 * @throws LorikeetError `data-encoding` when the file is UTF-16 or UTF-32
 */
export async function* readLines(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<Line> {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let number = 0;
  const decode = (bytes: Uint8Array): Line => {
    const place = { file, line: ++number };
    const line = number === 1 ? withoutMark(bytes, file) : bytes;
    try {
      return { place, text: decoder.decode(line.at(-1) === CR ? line.subarray(0, -1) : line) };
    } catch {
      return { place, fault: encodingFault(line) };
    }
  };

  let pending: Uint8Array[] = [];
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(LF); end >= 0; end = chunk.indexOf(LF, start)) {
      yield decode(join([...pending, chunk.subarray(start, end)]));
      pending = [];
      start = end + 1;
    }
    if (start < chunk.length) pending.push(chunk.slice(start));
  }
  if (pending.length > 0) yield decode(join(pending));
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function withoutMark(bytes: Uint8Array, file: string): Uint8Array {
  const [a, b, c] = bytes;
  if (a === 0xef && b === 0xbb && c === 0xbf) return bytes.subarray(3);
  const isWide = (a === 0xff && b === 0xfe) || (a === 0xfe && b === 0xff);
  if (!isWide && a !== 0 && b !== 0) return bytes; // without a mark, one of the first two bytes is 0
  throw new LorikeetError("data-encoding", `Expected ${file} to be UTF-8, got UTF-16 or UTF-32`, {
    hint: `Convert it: iconv -f UTF-16 -t UTF-8 ${file} > utf8-${file.replace(/^.*[\\/]/, "")}`,
  });
}

function encodingFault(bytes: Uint8Array): LorikeetError {
  const at = validLength(bytes);
  const byte = bytes[at]!.toString(16).toUpperCase().padStart(2, "0");
  return new LorikeetError(
    "data-encoding",
    `Expected UTF-8, got the byte 0x${byte} at byte ${at}`,
    {
      hint: "Save the file as UTF-8, or leave the row out with --skip-bad-rows.",
    },
  );
}

/** Length of the longest prefix of `bytes` that is whole UTF-8; found by halving. */
function validLength(bytes: Uint8Array): number {
  const encoder = new TextEncoder();
  let [good, bad] = [0, bytes.length + 1];
  let length = 0;
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    // streaming holds back a character that is cut off at the end, so only wrong bytes give U+FFFD
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });
    try {
      const text = decoder.decode(bytes.subarray(0, middle), { stream: true });
      length = encoder.encode(text).length;
      good = middle;
    } catch {
      bad = middle;
    }
  }
  return length;
}
