import { Readable } from "node:stream";
import { type CsvError, parse } from "csv-parse";
import { LorikeetError } from "../errors.ts";
import { type Line, readLines } from "../data/read/lines.ts";
import { reasonOf, type SourceRow, syntaxFault } from "../data/read/source-row.ts";

/**
 * Rows of a table with a header line, as text by column name. Lines end in LF, CRLF or CR. Fields may be quoted and
 * then span lines; line ends in them become LF. https://www.rfc-editor.org/rfc/rfc4180
 */
export async function* readCsv(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
  delimiter: string,
): AsyncGenerator<SourceRow> {
  const faults: SourceRow[] = [];
  let header: readonly string[] = [];
  const parser = parse({
    ...{ info: true, skip_empty_lines: true, skip_records_with_error: true },
    ...{ delimiter, record_delimiter: "\n" },
    columns: (names: string[]) => (header = names),
  });
  parser.on("skip", (error: CsvError) => {
    const place = { file, line: (error as unknown as { lines: number }).lines };
    faults.push(syntaxFault(place, `Expected a CSV row, got: ${reasonOf(error)}`, error));
  });
  const source = Readable.from(textOf(readLines(file, chunks), (fault) => faults.push(fault)));
  source.on("error", (error) => parser.destroy(error)).pipe(parser);
  parser.on("close", () => source.destroy()); // or a file that is not read to its end stays open

  let isBare = true;
  for await (const { info, record } of parser as AsyncIterable<Parsed>) {
    if (isBare && repeatedIn(header) !== undefined) break; // at the first row, not at each
    isBare = false;
    const breaks = Object.values(record).join("").split("\n").length - 1;
    const line = info.lines - breaks;
    // the parser is ahead of what is read from it
    while (faults[0] && faults[0].place.line < line) yield faults.shift()!;
    yield { place: { file, line }, value: record };
  }
  const repeated = repeatedIn(header);
  if (repeated !== undefined) yield repeatedFault(file, repeated);
  else if (faults.length > 0) yield* faults;
  else if (isBare && header.some((name) => name.trim() !== ""))
    yield { place: { file, line: 1 }, fault: rowless() };
}

/** The first name that stands twice in `header`; columns without a name are not told apart. */
function repeatedIn(header: readonly string[]): string | undefined {
  return header.find((name, i) => name !== "" && header.indexOf(name) < i);
}

function repeatedFault(file: string, name: string): SourceRow {
  const message = `Expected each column once in the header, got ${name} twice`;
  const hint = "Rename one of the two columns, or take it out.";
  return { place: { file, line: 1 }, fault: new LorikeetError("data-syntax", message, { hint }) };
}

function rowless(): LorikeetError {
  return new LorikeetError("data-empty", "Expected rows, got a header and no rows after it", {
    hint: "Put rows below the header, or leave the file out.",
  });
}

/** A record and the line that it ends on. */
interface Parsed {
  readonly info: { readonly lines: number };
  readonly record: Readonly<Record<string, string>>;
}

/** The lines again (and each apart where the first has all of them, as they end in CR), up to the first that is not text: what its quotes would have closed can't be told. */
async function* textOf(
  lines: AsyncIterable<Line>,
  report: (fault: SourceRow) => void,
): AsyncGenerator<string> {
  let isCr: boolean | undefined;
  for await (const line of lines) {
    if ("fault" in line) {
      report(line);
      return;
    }
    isCr ??= line.text.includes("\r");
    yield `${isCr ? line.text.replaceAll("\r", "\n") : line.text}\n`;
  }
}
