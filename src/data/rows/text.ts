import { type JsonRow, rowError, type TextRow } from "./row.ts";
import { textOf } from "./columns.ts";

/** Whether a row is `{ text }`. */
export function isText(row: JsonRow): boolean {
  return row["text"] !== undefined;
}

/** @throws LorikeetError `data-row` */
export function textRow(row: JsonRow): TextRow {
  const text = textOf(row["text"], "text");
  if (text === "") throw rowError("Expected text, got an empty one");
  return { kind: "text", text, ...(row["continues"] === true && { continues: true }) };
}
