import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { createGunzip } from "node:zlib";
import { readJson } from "../data/read/json.ts";
import { readJsonl } from "../data/read/jsonl.ts";
import { readParquet } from "../data/read/parquet.ts";
import { reasonOf, type SourceRow, type SourceRows } from "../data/read/source-row.ts";
import { readPlainText } from "../data/read/text.ts";
import { LorikeetError, nearest } from "../errors.ts";
import { asFileError } from "./file-errors.ts";
import { fileSource } from "./files.ts";
import { readCsv } from "./read-csv.ts";
import { readStream, STREAM } from "./read-stream.ts";

type Chunks = AsyncIterable<Uint8Array>;
type Reader = (file: string, chunks: Chunks) => AsyncIterable<SourceRow>;

const READERS: Readonly<Record<string, Reader>> = {
  ".jsonl": readJsonl,
  ".ndjson": readJsonl,
  ".json": readJson,
  ".csv": (file, chunks) => readCsv(file, chunks, ","),
  ".tsv": (file, chunks) => readCsv(file, chunks, "\t"),
  ".txt": readPlainText,
};

/** Endings of the files that data is read from; all but .parquet may also be gzipped (`.jsonl.gz`). */
const DATA_ENDINGS: readonly string[] = [...Object.keys(READERS), ".parquet"];

/**
 * Rows of every file of `paths`: files, folders (all data files in them, sorted by path), or `-` for `input`.
 * A file without rows counts as one bad row.
 * @throws LorikeetError `file-not-found`, `permission-denied`, `data-kind` when a file is of no known kind or a folder
 * has none, `data-encoding` when a file is UTF-16
 */
export async function* readDataset(
  paths: readonly string[],
  input: Chunks = process.stdin,
): AsyncGenerator<SourceRow> {
  const files = (await Promise.all(paths.map(listFiles))).flat();
  for (const file of files) {
    let isEmpty = true;
    for await (const row of file === "-" ? readStream(input) : readFile(file)) {
      isEmpty = false;
      yield row;
    }
    if (isEmpty) yield { place: { file: file === "-" ? STREAM : file, line: 0 }, fault: empty() };
  }
}

/**
 * The data files that `path` stands for.
 * @throws LorikeetError `file-not-found`, `data-kind`
 */
export async function listFiles(path: string): Promise<string[]> {
  if (path === "-") return [path];
  const info = await stat(path).catch(async (cause: unknown) => {
    throw await withNearest(asFileError(cause, path, "readable"), path);
  });
  if (!info.isDirectory()) {
    if (endingOf(path) === undefined) throw kindError(`Expected ${path} to end in`);
    return [path];
  }
  const names = await readdir(path, { recursive: true });
  const files = names
    .filter((name) => endingOf(name) !== undefined && !/(^|[\\/])\./.test(name))
    .sort((a, b) => (a < b ? -1 : 1))
    .map((name) => join(path, name));
  if (files.length === 0) throw kindError(`Expected the folder ${path} to hold files that end in`);
  return files;
}

function endingOf(path: string): string | undefined {
  const name = path.toLowerCase();
  return DATA_ENDINGS.find(
    (ending) => name.endsWith(ending) || (ending !== ".parquet" && name.endsWith(`${ending}.gz`)),
  );
}

function stemOf(path: string): string {
  return basename(path).replace(/(\.\w+)?(\.gz)?$/, "");
}

async function* readFile(file: string): SourceRows {
  const reader = READERS[endingOf(file)!];
  try {
    if (reader) yield* reader(file, chunksOf(file));
    else yield* readParquet(await fileSource(file));
  } catch (cause) {
    if (isGzipError(cause)) yield gzipFault(file, cause);
    else throw asFileError(cause, file, "readable");
  }
}

function chunksOf(file: string): Chunks {
  const stream = createReadStream(file, { highWaterMark: 2 ** 18 });
  if (!file.toLowerCase().endsWith(".gz")) return stream;
  const unzipped = createGunzip();
  stream.on("error", (error) => unzipped.destroy(error));
  return stream.pipe(unzipped);
}

function isGzipError(cause: unknown): boolean {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? "";
  return code.startsWith("Z_");
}

function gzipFault(file: string, cause: unknown): SourceRow {
  const fault = new LorikeetError(
    "data-syntax",
    `Expected a whole gzip file, got: ${reasonOf(cause)}`,
    {
      hint: "The file was cut off or is not gzipped. Fetch it again, or take .gz off its name.",
      cause,
    },
  );
  return { place: { file, line: 0 }, fault };
}

function empty(): LorikeetError {
  return new LorikeetError("data-empty", "Expected rows, got an empty file", {
    hint: "Put rows into the file, or leave it out.",
  });
}

function kindError(expected: string): LorikeetError {
  return new LorikeetError("data-kind", `${expected} ${DATA_ENDINGS.join(", ")}`, {
    hint: "Rename the file after what it holds; .gz may follow.",
  });
}

async function withNearest(error: unknown, path: string): Promise<unknown> {
  if (!(error instanceof LorikeetError) || error.code !== "file-not-found") return error;
  const names = (await readdir(dirname(path)).catch(() => [])).filter(endingOf);
  // endings are alike anyway: what is before them must be near
  const stems = nearest(stemOf(path), names.map(stemOf));
  const near = names.filter((name) => stems.includes(stemOf(name)));
  if (near.length === 0) return error;
  const hint = `Did you mean ${near.map((name) => join(dirname(path), name)).join(", ")}?`;
  return new LorikeetError(error.code, error.message, { hint, cause: error.cause });
}
