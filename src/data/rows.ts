import { nearest } from "../errors.ts";
import { alpacaRow, isAlpaca } from "./rows/alpaca.ts";
import { chatRow, isChat } from "./rows/chat.ts";
import { completionRow, isCompletion } from "./rows/completion.ts";
import { describe, type JsonRow, type Row, rowError } from "./rows/row.ts";
import { isShareGpt, shareGptRow } from "./rows/sharegpt.ts";
import { isText, textRow } from "./rows/text.ts";

/** Names of the formats, as `--format` takes them. */
export type RowFormat = "messages" | "sharegpt" | "completion" | "alpaca" | "text";

interface Format {
  readonly keys: string;
  readonly matches: (row: JsonRow) => boolean;
  readonly parse: (row: JsonRow) => Row;
}

// the first that matches wins
const FORMATS: Readonly<Record<RowFormat, Format>> = {
  messages: { keys: "messages", matches: isChat, parse: chatRow },
  sharegpt: { keys: "conversations", matches: isShareGpt, parse: shareGptRow },
  completion: { keys: "prompt, completion", matches: isCompletion, parse: completionRow },
  alpaca: { keys: "instruction, output", matches: isAlpaca, parse: alpacaRow },
  text: { keys: "text", matches: isText, parse: textRow },
};

/** Names of all formats. */
export const ROW_FORMATS: readonly RowFormat[] = Object.keys(FORMATS) as RowFormat[];

/**
 * The training row that `value` holds, in `format` or in the first format that its columns fit.
 * @throws LorikeetError `data-row` that tells what is wrong with it
 */
export function parseRow(value: unknown, format?: RowFormat): Row {
  if (typeof value === "string") return textRow({ text: value });
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw rowError(`Expected an object with named columns, got ${describe(value)}`);
  const row = value as JsonRow;
  const candidates = format === undefined ? Object.values(FORMATS) : [FORMATS[format]];
  const match = candidates.find(({ matches }) => matches(row));
  if (match) return match.parse(row);

  const expected = candidates.map(({ keys }) => keys);
  const keys = Object.keys(row);
  const wanted = expected.flatMap((columns) => columns.split(", "));
  const close = keys.flatMap((key) => nearest(key, wanted, 1).filter((near) => near !== key));
  throw rowError(
    `Expected the columns ${expected.join(" | ")}, got ${keys.join(", ") || "none"}`,
    close.length > 0
      ? `Did you mean ${[...new Set(close)].map((name) => `"${name}"`).join(", ")}?`
      : undefined,
  );
}
