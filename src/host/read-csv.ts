import { Readable } from "node:stream";
import { type CsvError, parse } from "csv-parse";
import { type Line, readLines } from "../data/read/lines.ts";
import { reasonOf, type SourceRow, syntaxFault } from "../data/read/source-row.ts";

/**
 * Rows of a table with a header line, as text by column name. Fields may be quoted and then span lines; line ends in
 * them become LF. https://www.rfc-editor.org/rfc/rfc4180
 */
export async function* readCsv(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
  delimiter: string,
): AsyncGenerator<SourceRow> {
  const faults: SourceRow[] = [];
  const options = { columns: true, info: true, skip_empty_lines: true, delimiter } as const;
  const parser = parse({ ...options, skip_records_with_error: true });
  parser.on("skip", (error: CsvError) => {
    const place = { file, line: (error as unknown as { lines: number }).lines };
    faults.push(syntaxFault(place, `Expected a CSV row, got: ${reasonOf(error)}`, error));
  });
  Readable.from(textOf(readLines(file, chunks), (fault) => faults.push(fault)))
    .on("error", (error) => parser.destroy(error))
    .pipe(parser);

  for await (const { info, record } of parser as AsyncIterable<Parsed>) {
    const breaks = Object.values(record).join("").split("\n").length - 1;
    const line = info.lines - breaks;
    // the parser is ahead of what is read from it
    while (faults[0] && faults[0].place.line < line) yield faults.shift()!;
    yield { place: { file, line }, value: record };
  }
  yield* faults;
}

/** A record and the line that it ends on. */
interface Parsed {
  readonly info: { readonly lines: number };
  readonly record: Readonly<Record<string, string>>;
}

/** The lines again, up to the first that is not text: what its quotes would have closed can't be told. */
async function* textOf(
  lines: AsyncIterable<Line>,
  report: (fault: SourceRow) => void,
): AsyncGenerator<string> {
  for await (const line of lines) {
    if ("fault" in line) {
      report(line);
      return;
    }
    yield `${line.text}\n`;
  }
}
