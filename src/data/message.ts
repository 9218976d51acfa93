/** Who speaks in a turn. */
export type Role = "system" | "developer" | "user" | "assistant" | "tool";

/** Roles that a chat may have. */
export const ROLES: readonly Role[] = ["system", "developer", "user", "assistant", "tool"];

/** A function that an assistant turn calls. */
export interface ToolCall {
  readonly id?: string;
  readonly type: "function";
  readonly function: {
    readonly name: string;
    /** By parameter name; a string only where the row's was not a JSON object. */
    readonly arguments: Readonly<Record<string, unknown>> | string;
  };
}

/** One turn of a chat, in the form that chat templates read. */
export interface Message {
  readonly role: Role;
  /** Empty when the turn only calls tools. */
  readonly content: string;
  readonly tool_calls?: readonly ToolCall[];
  /** Name of the tool that a tool turn answers for. */
  readonly name?: string;
  readonly tool_call_id?: string;
  /** Thoughts before the answer, for templates that have a place for them. */
  readonly reasoning_content?: string;
}

/** Whether an assistant turn is trained; others never are. `false` comes from `weight: 0` or `train: false`. */
export interface TrainedMessage extends Message {
  readonly train?: false;
}
