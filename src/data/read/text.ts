import { readLines } from "./lines.ts";
import type { Place, SourceRow } from "./source-row.ts";

/** Characters of a piece, about: a few thousand tokens. */
const PIECE = 16_384;

/**
 * A plain-text file as one document in pieces of about 16,384 characters, cut at blank lines where there are some,
 * otherwise at line ends. All pieces but the last say that the document `continues`.
 */
export async function* readPlainText(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
  pieceLength: number = PIECE,
): AsyncGenerator<SourceRow> {
  let place: Place = { file, line: 1 };
  const lines: string[] = [];
  let length = 0;
  let blank = 0; // how many lines stand before the last cut that a blank line allows
  const take = (count: number): string => {
    const text = lines.splice(0, count).map((line) => `${line}\n`);
    place = { file, line: place.line + count };
    length = lines.reduce((sum, line) => sum + line.length + 1, 0);
    blank = 0;
    return text.join("");
  };

  for await (const line of readLines(file, chunks)) {
    if ("fault" in line) {
      yield line;
      continue;
    }
    if (length >= pieceLength) {
      const from = place;
      const text = take(blank > 0 ? blank : lines.length);
      if (text.trim() !== "") yield { place: from, value: { text, continues: true } };
    }
    lines.push(line.text);
    length += line.text.length + 1;
    if (line.text.trim() === "") blank = lines.length;
  }
  const text = lines.join("\n");
  if (text.trim() !== "") yield { place, value: { text } };
}
