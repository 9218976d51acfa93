import { describe, rowError } from "./row.ts";

/**
 * A column that holds a list; tables without lists (CSV) hold its JSON as text.
 * @throws LorikeetError `data-row`
 */
export function listColumn(column: unknown, name: string): readonly unknown[] {
  if (Array.isArray(column)) return column;
  if (typeof column === "string" && column.trimStart().startsWith("[")) {
    try {
      return JSON.parse(column) as unknown[];
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw rowError(`Expected ${name} to be a JSON list, got text that is not JSON: ${reason}`);
    }
  }
  throw rowError(`Expected ${name} to be a list, got ${describe(column)}`);
}

/**
 * Text, or a list of text parts `{ type: "text", text }`, joined.
 * @throws LorikeetError `data-row` for anything else, such as images
 */
export function textOf(column: unknown, name: string): string {
  if (typeof column === "string") return wellFormed(column, name);
  if (!Array.isArray(column))
    throw rowError(`Expected ${name} to be text, got ${describe(column)}`);
  return column
    .map((part, i) => {
      const { type, text } = (part ?? {}) as { type?: unknown; text?: unknown };
      if ((type === "text" || type === undefined) && typeof text === "string")
        return wellFormed(text, name);
      throw rowError(
        `Expected ${name}[${i}] to be a text part, got ${describe(type ?? part)}`,
        "Only text can be trained on; remove images and sounds from the data.",
      );
    })
    .join("");
}

/** Half a surrogate pair (a JSON `\ud83d` cut off) has no UTF-8 and no tokens. */
function wellFormed(text: string, name: string): string {
  const lone = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.exec(text);
  if (lone === null) return text;
  const unit = lone[0].charCodeAt(0).toString(16);
  throw rowError(
    `Expected ${name} to be Unicode text, got half a surrogate pair (\\u${unit}) at ${lone.index}`,
  );
}

/** A text column that may be absent or empty. */
export function optionalText(column: unknown, name: string): string {
  return column === undefined || column === null ? "" : textOf(column, name);
}
