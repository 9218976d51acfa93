import type { ChatRow, CompletionRow, JsonRow } from "./row.ts";
import { rowError } from "./row.ts";
import { hasValue, parseMessages, withTools } from "./chat.ts";
import { textOf } from "./columns.ts";

/** Whether a row is `{ prompt, completion }`, both text or both lists of turns, as TRL has it. */
export function isCompletion(row: JsonRow): boolean {
  return row["prompt"] !== undefined && row["completion"] !== undefined;
}

/**
 * Text stays text, without a template; turns become a chat of which only the completion's answers are trained.
 * @throws LorikeetError `data-row`
 */
export function completionRow(row: JsonRow): CompletionRow | ChatRow {
  const { prompt, completion, tools } = row;
  if (isTurns(prompt) !== isTurns(completion))
    throw rowError(
      "Expected prompt and completion to be both text or both lists of turns, got one of each",
    );
  if (isTurns(prompt)) {
    const asked = parseMessages(prompt, "prompt");
    const answered = parseMessages(completion, "completion");
    if (!answered.some(({ role }) => role === "assistant"))
      throw rowError("Expected completion to hold an assistant turn, got none");
    const untrained = asked.map((turn) => ({ ...turn, train: false as const }));
    return withTools({ kind: "chat", messages: [...untrained, ...answered] }, tools);
  }
  const text = textOf(completion, "completion");
  if (!hasValue(text)) throw rowError("Expected completion to be text, got an empty one");
  return { kind: "completion", prompt: textOf(prompt, "prompt"), completion: text };
}

function isTurns(column: unknown): boolean {
  if (typeof column === "string") return /^\s*\[\s*\{\s*"role"/.test(column); // CSV holds lists as JSON
  return Array.isArray(column);
}
