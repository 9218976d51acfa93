import { nearest } from "../../errors.ts";
import { type Role, ROLES, type ToolCall, type TrainedMessage } from "../message.ts";
import { type ChatRow, type JsonRow, describe, rowError } from "./row.ts";
import { listColumn, textOf } from "./columns.ts";

/** Whether a row is `{ messages: [{ role, content }, …], tools? }`, as OpenAI and TRL have it. */
export function isChat(row: JsonRow): boolean {
  return hasValue(row["messages"]);
}

/** @throws LorikeetError `data-row` */
export function chatRow(row: JsonRow): ChatRow {
  const messages = parseMessages(row["messages"], "messages");
  return withTools({ kind: "chat", messages }, row["tools"]);
}

/** Whether a column is there and filled. */
export function hasValue(column: unknown): boolean {
  return column !== undefined && column !== null && column !== "";
}

/** `row` with the functions of its `tools` column: a list, or a JSON list as text. */
export function withTools(row: ChatRow, column: unknown): ChatRow {
  if (!hasValue(column)) return row;
  const tools = listColumn(column, "tools");
  return tools.length === 0 ? row : { ...row, tools };
}

/**
 * Turns from a list of `{ role, content }`, or from such a list as JSON text.
 * @throws LorikeetError `data-row`
 */
export function parseMessages(column: unknown, name: string): TrainedMessage[] {
  const list = listColumn(column, name);
  if (list.length === 0) throw rowError(`Expected ${name} to hold at least one turn, got none`);
  return list.map((turn, i) => parseMessage(turn, `${name}[${i}]`));
}

function parseMessage(turn: unknown, place: string): TrainedMessage {
  if (typeof turn !== "object" || turn === null)
    throw rowError(`Expected ${place} to be { role, content }, got ${describe(turn)}`);
  const { role, content, tool_calls, name, tool_call_id, reasoning_content, weight, train } =
    turn as JsonRow;
  const calls = hasValue(tool_calls) ? listColumn(tool_calls, `${place}.tool_calls`) : [];
  const message: TrainedMessage = {
    role: parseRole(role, place),
    content: calls.length > 0 && !hasValue(content) ? "" : textOf(content, `${place}.content`),
    ...(calls.length > 0 && {
      tool_calls: calls.map((call, i) => parseCall(call, `${place}.tool_calls[${i}]`)),
    }),
    ...(typeof name === "string" && { name }),
    ...(typeof tool_call_id === "string" && { tool_call_id }),
    ...(typeof reasoning_content === "string" && { reasoning_content }),
    ...((weight === 0 || train === false) && { train: false }),
  };
  return message;
}

function parseRole(role: unknown, place: string): Role {
  if (ROLES.includes(role as Role)) return role as Role;
  const near = typeof role === "string" ? nearest(role, ROLES, 1)[0] : undefined;
  throw rowError(
    `Expected ${place}.role to be one of ${ROLES.join(", ")}, got ${describe(role)}`,
    near && `Did you mean "${near}"?`,
  );
}

/** OpenAI's `{ id, type, function: { name, arguments } }`, or only the inner part. */
export function parseCall(call: unknown, place: string): ToolCall {
  const { function: inner = call, id } = (call ?? {}) as { function?: unknown; id?: unknown };
  const { name, arguments: given } = (inner ?? {}) as { name?: unknown; arguments?: unknown };
  if (typeof name !== "string")
    throw rowError(
      `Expected ${place} to be { function: { name, arguments } }, got ${describe(call)}`,
    );
  const fn = { name, arguments: parseArguments(given, place) };
  return { ...(typeof id === "string" && { id }), type: "function", function: fn };
}

/** Templates write arguments as JSON themselves, so JSON text is parsed, or it would be quoted twice. */
function parseArguments(given: unknown, place: string): ToolCall["function"]["arguments"] {
  if (given === undefined || given === null) return {};
  if (typeof given === "object" && !Array.isArray(given)) return given as JsonRow;
  if (typeof given !== "string")
    throw rowError(
      `Expected ${place}.arguments to be an object or its JSON, got ${describe(given)}`,
    );
  try {
    const parsed: unknown = JSON.parse(given);
    return typeof parsed === "object" && parsed !== null ? (parsed as JsonRow) : given;
  } catch {
    return given;
  }
}
