import type { TrainedMessage } from "../message.ts";
import { type ChatRow, describe, type JsonRow, rowError } from "./row.ts";
import { hasValue } from "./chat.ts";
import { listColumn, optionalText, textOf } from "./columns.ts";

/** Whether a row is `{ instruction, input?, output, system?, history? }`, as Stanford Alpaca and LLaMA-Factory have it. */
export function isAlpaca(row: JsonRow): boolean {
  return row["instruction"] !== undefined && row["output"] !== undefined;
}

/**
 * A chat: the instruction and, after a blank line, the input are what the user says; the output is the answer.
 * @throws LorikeetError `data-row`
 */
export function alpacaRow(row: JsonRow): ChatRow {
  const system = optionalText(row["system"], "system");
  const input = optionalText(row["input"], "input");
  const instruction = textOf(row["instruction"], "instruction");
  const output = textOf(row["output"], "output");
  if (output === "") throw rowError("Expected output to be text, got an empty one");
  const question = [instruction, input].filter((part) => part !== "").join("\n\n");
  if (question === "") throw rowError("Expected instruction or input to be text, got neither");
  const messages: TrainedMessage[] = [
    ...(system === "" ? [] : [{ role: "system", content: system } as const]),
    ...history(row["history"]),
    { role: "user", content: question },
    { role: "assistant", content: output },
  ];
  return { kind: "chat", messages };
}

function history(column: unknown): TrainedMessage[] {
  if (!hasValue(column)) return [];
  return listColumn(column, "history").flatMap((pair, i): TrainedMessage[] => {
    if (!Array.isArray(pair) || pair.length !== 2)
      throw rowError(`Expected history[${i}] to be [question, answer], got ${describe(pair)}`);
    return [
      { role: "user", content: textOf(pair[0], `history[${i}][0]`) },
      { role: "assistant", content: textOf(pair[1], `history[${i}][1]`) },
    ];
  });
}
