import { readJson } from "../data/read/json.ts";
import { readJsonl } from "../data/read/jsonl.ts";
import { readParquet } from "../data/read/parquet.ts";
import type { SourceRows } from "../data/read/source-row.ts";
import { readPlainText } from "../data/read/text.ts";
import { readCsv } from "./read-csv.ts";
import { temporaryFile } from "./temporary-file.ts";

type Chunks = AsyncIterable<Uint8Array>;

/** What messages call the stream. */
export const STREAM = "stdin";

/**
 * Rows of a stream, which has no name to tell what it is: `[` begins a JSON array, `{` JSON Lines, `PAR1` Parquet, a line
 * of known columns (or `text` alone, with lines after it) a table, all else is text.
 */
export async function* readStream(input: Chunks): SourceRows {
  const iterator = input[Symbol.asyncIterator]();
  const head: Uint8Array[] = [];
  const decoder = new TextDecoder();
  let start = "";
  while (!/^[[{]|^PAR1|\n/.test(start) && start.length < LONGEST_HEADER) {
    const next = await iterator.next();
    if (next.done) break;
    head.push(next.value);
    start = (start + decoder.decode(next.value, { stream: true })).trimStart();
  }
  async function* whole(): AsyncGenerator<Uint8Array> {
    try {
      yield* head.splice(0);
      for (let next = await iterator.next(); !next.done; next = await iterator.next())
        yield next.value;
    } finally {
      await iterator.return?.(); // or a stream that is not read to its end keeps the process alive
    }
  }
  yield* readerOf(start)(STREAM, whole());
}

/** Characters in which a header line must end. */
const LONGEST_HEADER = 65_536;
/** Columns that tell a table by its header line. */
const HEADERS = [["prompt", "completion"], ["instruction", "output"], ["messages"], ["conversations"], ["text", "label"]]; // prettier-ignore

function readerOf(start: string): (file: string, chunks: Chunks) => SourceRows {
  if (start.startsWith("[")) return readJson;
  if (start.startsWith("{")) return readJsonl;
  if (start.startsWith("PAR1")) return readSpooledParquet;
  const line = /^.*/.exec(start)![0];
  if (/^(text|"text")\r?\n/.test(start)) return (file, chunks) => readCsv(file, chunks, ",");
  const delimiter = [",", "\t"].find((separator) => {
    const cells = line.split(separator).map((cell) => cell.replace(/^"(.*)"$/, "$1"));
    return HEADERS.some((columns) => columns.every((column) => cells.includes(column)));
  });
  if (delimiter === undefined) return readPlainText;
  return (file, chunks) => readCsv(file, chunks, delimiter);
}

/** Parquet is read from its end, so the stream goes into a temporary file first. */
async function* readSpooledParquet(name: string, chunks: Chunks): SourceRows {
  const file = await temporaryFile(name);
  try {
    for await (const bytes of chunks) await file.append(bytes);
    yield* readParquet(file);
  } finally {
    await file.dispose();
  }
}
