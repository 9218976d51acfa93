import { LorikeetError } from "../../errors.ts";
import type { TrainedMessage } from "../message.ts";

/** A training row, whatever format it came in. */
export type Row = ChatRow | CompletionRow | TextRow;

/** Turns that the model's chat template joins. */
export interface ChatRow {
  readonly kind: "chat";
  readonly messages: readonly TrainedMessage[];
  /** JSON schemas of the functions that the assistant may call. */
  readonly tools?: readonly unknown[];
}

/** Text and what follows it; no template is applied. */
export interface CompletionRow {
  readonly kind: "completion";
  readonly prompt: string;
  readonly completion: string;
}

/** Text that is trained as a whole. */
export interface TextRow {
  readonly kind: "text";
  readonly text: string;
  /** Whether more of the same document follows in another row: then no end-of-text token is added. */
  readonly continues?: boolean;
}

/** A row as read: column names and values. */
export type JsonRow = Readonly<Record<string, unknown>>;

/** The error for a row that can't be trained on. */
export function rowError(message: string, hint?: string): LorikeetError {
  return new LorikeetError("data-row", message, hint === undefined ? {} : { hint });
}

/** `value` as it stands in messages: its kind, and its start when it is short enough to help. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object")
    return `an object with ${Object.keys(value).join(", ") || "no keys"}`;
  const text = JSON.stringify(value);
  return `${typeof value} ${text.length > 60 ? `${text.slice(0, 60)}…` : text}`;
}
