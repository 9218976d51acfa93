import { LorikeetError } from "../../errors.ts";

/** Where a row stands: file and line from 1 (row from 1 in a Parquet file; 0 is the file as a whole). */
export interface Place {
  readonly file: string;
  readonly line: number;
}

/** A row as it was read, or why it could not be. */
export type SourceRow =
  | { readonly place: Place; readonly value: unknown }
  | { readonly place: Place; readonly fault: LorikeetError };

/** Rows in the order of the source. */
export type SourceRows = AsyncIterable<SourceRow>;

/** `place` as messages have it: `chats.jsonl:12`. */
export function formatPlace({ file, line }: Place): string {
  return line > 0 ? `${file}:${line}` : file;
}

/** The fault of a row that is not in its file's syntax. */
export function syntaxFault(place: Place, message: string, cause?: unknown): SourceRow {
  const hint =
    place.line === 0
      ? "Check that the file is whole and of the kind that its name says."
      : "Correct the row, or leave it out with --skip-bad-rows.";
  return { place, fault: new LorikeetError("data-syntax", message, { hint, cause }) };
}

/** `cause`'s message on one line. */
export function reasonOf(cause: unknown): string {
  return (cause instanceof Error ? cause.message : String(cause)).replaceAll(/\s*\n\s*/g, " ");
}
