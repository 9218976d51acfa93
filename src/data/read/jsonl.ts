import { readLines } from "./lines.ts";
import { reasonOf, type SourceRow, syntaxFault } from "./source-row.ts";

/** Rows of a file with one JSON value a line; blank lines are passed over. https://jsonlines.org */
export async function* readJsonl(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<SourceRow> {
  for await (const line of readLines(file, chunks)) {
    if ("fault" in line) yield line;
    else if (line.text.trim() !== "") {
      const { place, text } = line;
      try {
        yield { place, value: JSON.parse(text) };
      } catch (cause) {
        yield syntaxFault(place, `Expected one JSON value, got: ${reasonOf(cause)}`, cause);
      }
    }
  }
}
