import { nearest } from "../../errors.ts";
import type { Role, TrainedMessage } from "../message.ts";
import { type ChatRow, describe, type JsonRow, rowError } from "./row.ts";
import { hasValue, parseCall, parseMessages, withTools } from "./chat.ts";
import { listColumn, optionalText, textOf } from "./columns.ts";

const SPEAKERS: Readonly<Record<string, Role>> = {
  system: "system",
  human: "user",
  user: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  bot: "assistant",
  bard: "assistant",
  model: "assistant",
  assistant: "assistant",
  function_call: "assistant",
  tool: "tool",
  function: "tool",
  function_response: "tool",
  observation: "tool",
};

/** Whether a row is `{ conversations: [{ from, value }, …], system?, tools? }`, as ShareGPT and LLaMA-Factory have it. */
export function isShareGpt(row: JsonRow): boolean {
  return hasValue(row["conversations"]);
}

/** @throws LorikeetError `data-row` */
export function shareGptRow(row: JsonRow): ChatRow {
  const turns = listColumn(row["conversations"], "conversations");
  if (turns.length === 0)
    throw rowError("Expected conversations to hold at least one turn, got none");
  const system = optionalText(row["system"], "system");
  const first: TrainedMessage[] = system === "" ? [] : [{ role: "system", content: system }];
  const usesRoles = turns.every(
    (turn) => typeof turn === "object" && turn !== null && "role" in turn,
  );
  const messages = usesRoles ? parseMessages(turns, "conversations") : turns.map(parseTurn);
  return withTools({ kind: "chat", messages: [...first, ...messages] }, row["tools"]);
}

function parseTurn(turn: unknown, i: number): TrainedMessage {
  const place = `conversations[${i}]`;
  if (typeof turn !== "object" || turn === null || !("from" in turn) || !("value" in turn))
    throw rowError(`Expected ${place} to be { from, value }, got ${describe(turn)}`);
  const { from, value, weight, train } = turn as JsonRow;
  const speaker = typeof from === "string" ? from.toLowerCase() : "";
  const role = SPEAKERS[speaker];
  if (role === undefined) {
    const near = typeof from === "string" ? nearest(from, Object.keys(SPEAKERS), 1)[0] : undefined;
    throw rowError(
      `Expected ${place}.from to be one of ${Object.keys(SPEAKERS).join(", ")}, got ${describe(from)}`,
      near && `Did you mean "${near}"?`,
    );
  }
  const untrained = (weight === 0 || train === false) && { train: false as const };
  const text = textOf(value, `${place}.value`);
  if (speaker !== "function_call") return { role, content: text, ...untrained };
  return { role, content: "", tool_calls: parseCalls(text, place), ...untrained };
}

function parseCalls(text: string, place: string): ReturnType<typeof parseCall>[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw rowError(
      `Expected ${place}.value to be the call as JSON { name, arguments }, got ${describe(text)}`,
    );
  }
  return (Array.isArray(parsed) ? parsed : [parsed]).map((call) =>
    parseCall(call, `${place}.value`),
  );
}
