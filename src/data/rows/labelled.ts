import { textOf } from "./columns.ts";
import { describe, type JsonRow, rowError } from "./row.ts";

/** A text and the class that it belongs to. */
export interface LabelledRow {
  readonly text: string;
  readonly label: string;
}

/** A row `{ text, label }`; a label is text, a number, or true or false. @throws LorikeetError `data-row` */
export function labelledRow(value: unknown): LabelledRow {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw rowError(`Expected an object with the columns text, label, got ${describe(value)}`);
  const { text, label } = value as JsonRow;
  if (text === undefined || label === undefined || label === null || label === "")
    throw rowError(
      `Expected the columns text, label, got ${Object.keys(value).join(", ") || "none"}`,
    );
  if (typeof label !== "string" && typeof label !== "number" && typeof label !== "boolean")
    throw rowError(`Expected label to be a text or a number, got ${describe(label)}`);
  return { text: textOf(text, "text"), label: String(label) };
}
