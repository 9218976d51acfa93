import { describe, expect, it } from "vitest";
import { parseRow, ROW_FORMATS } from "./rows.ts";

const user = { role: "user", content: "Hi" };
const answer = { role: "assistant", content: "Hello" };
const chat = { kind: "chat", messages: [user, answer] };
const call = { type: "function", function: { name: "add", arguments: { a: 1 } } };
const tools = [{ type: "function", function: { name: "add" } }];

describe("parseRow", () => {
  it.each<[string, unknown, unknown]>([
    ["messages", { messages: [user, answer] }, chat],
    ["messages as JSON text", { messages: JSON.stringify([user, answer]) }, chat],
    [
      "text parts",
      {
        messages: [
          {
            role: "user",
            content: [
              { type: "text", text: "H" },
              { type: "text", text: "i" },
            ],
          },
          answer,
        ],
      },
      chat,
    ],
    [
      "columns of nulls (Parquet)",
      { messages: [{ ...user, name: null, tool_calls: null }, answer], tools: null },
      chat,
    ],
    [
      "untrained turns",
      { messages: [user, { ...answer, weight: 0 }, user, { ...answer, train: false }] },
      {
        kind: "chat",
        messages: [user, { ...answer, train: false }, user, { ...answer, train: false }],
      },
    ],
    [
      "tools and calls",
      {
        messages: [
          user,
          { role: "assistant", content: null, tool_calls: [call] },
          { role: "tool", content: "2", name: "add", tool_call_id: "1" },
        ],
        tools,
      },
      {
        kind: "chat",
        messages: [
          user,
          { role: "assistant", content: "", tool_calls: [call] },
          { role: "tool", content: "2", name: "add", tool_call_id: "1" },
        ],
        tools,
      },
    ],
    [
      "arguments as JSON text",
      {
        messages: [
          user,
          {
            role: "assistant",
            tool_calls: [{ id: "1", function: { name: "add", arguments: '{"a": 1}' } }],
          },
        ],
      },
      {
        kind: "chat",
        messages: [user, { role: "assistant", content: "", tool_calls: [{ id: "1", ...call }] }],
      },
    ],
    [
      "thoughts",
      { messages: [user, { ...answer, reasoning_content: "Greet." }] },
      { kind: "chat", messages: [user, { ...answer, reasoning_content: "Greet." }] },
    ],
    [
      "prompt and completion",
      { prompt: "1+1=", completion: "2" },
      { kind: "completion", prompt: "1+1=", completion: "2" },
    ],
    [
      "an empty prompt",
      { prompt: "", completion: "2" },
      { kind: "completion", prompt: "", completion: "2" },
    ],
    [
      "prompt and completion as turns",
      { prompt: [user, answer, user], completion: [answer] },
      {
        kind: "chat",
        messages: [
          { ...user, train: false },
          { ...answer, train: false },
          { ...user, train: false },
          answer,
        ],
      },
    ],
    ["instruction", { instruction: "Hi", output: "Hello" }, chat],
    [
      "instruction with empty columns",
      { instruction: "Hi", input: "", output: "Hello", system: null, history: [] },
      chat,
    ],
    [
      "instruction and input",
      {
        instruction: "Add",
        input: "1 1",
        output: "2",
        system: "Be exact.",
        history: [["Hi", "Hello"]],
      },
      {
        kind: "chat",
        messages: [
          { role: "system", content: "Be exact." },
          user,
          answer,
          { role: "user", content: "Add\n\n1 1" },
          { role: "assistant", content: "2" },
        ],
      },
    ],
    [
      "conversations",
      {
        conversations: [
          { from: "human", value: "Hi" },
          { from: "gpt", value: "Hello" },
        ],
      },
      chat,
    ],
    ["conversations with roles", { conversations: [user, answer] }, chat],
    [
      "conversations with tools",
      {
        system: "S",
        tools: JSON.stringify(tools),
        conversations: [
          { from: "human", value: "Hi" },
          { from: "Function_Call", value: '{"name": "add", "arguments": {"a": 1}}' },
          { from: "observation", value: "2" },
          { from: "gpt", value: "2" },
        ],
      },
      {
        kind: "chat",
        messages: [
          { role: "system", content: "S" },
          user,
          { role: "assistant", content: "", tool_calls: [call] },
          { role: "tool", content: "2" },
          { role: "assistant", content: "2" },
        ],
        tools,
      },
    ],
    ["text", { text: "Once" }, { kind: "text", text: "Once" }],
    ["bare text", "Once", { kind: "text", text: "Once" }],
    [
      "part of a text",
      { text: "Once", continues: true },
      { kind: "text", text: "Once", continues: true },
    ],
    ["messages before text", { text: "no", messages: [user, answer] }, chat],
  ])("reads %s", (_, value, expected) => {
    expect(parseRow(value)).toEqual(expected);
  });

  it("reads the format that is asked for", () => {
    const row = { text: "Once", messages: [user, answer] };
    expect(parseRow(row, "text")).toEqual({ kind: "text", text: "Once" });
    expect(ROW_FORMATS).toEqual(["messages", "sharegpt", "completion", "alpaca", "text"]);
    expect(() => parseRow(row, "alpaca")).toThrow(
      "Expected the columns instruction, output, got text, messages",
    );
  });

  it.each<[string, unknown, RegExp]>([
    ["a number", 3, /Expected an object with named columns, got number 3/],
    ["a list", [1], /got an array of 1/],
    ["null", null, /got nothing/],
    ["no columns", {}, /got none/],
    [
      "unknown columns",
      { a: 1, b: 2 },
      /Expected the columns messages \| conversations \| prompt, completion \| instruction, output \| text, got a, b/,
    ],
    ["half of a pair", { prompt: "a" }, /got prompt/],
    ["messages of text", { messages: "Hi" }, /Expected messages to be a list, got string "Hi"/],
    [
      "messages of broken JSON",
      { messages: '[{"role"' },
      /messages to be a JSON list, got text that is not JSON/,
    ],
    ["no messages", { messages: [] }, /at least one turn/],
    [
      "a turn of text",
      { messages: ["Hi"] },
      /messages\[0\] to be \{ role, content \}, got string "Hi"/,
    ],
    [
      "no role",
      { messages: [{ content: "Hi" }] },
      /messages\[0\]\.role to be one of .*, got nothing/,
    ],
    [
      "an unknown role",
      { messages: [{ role: "asistant", content: "Hi" }] },
      /messages\[0\]\.role .* got string "asistant"/,
    ],
    [
      "no content",
      { messages: [user, { role: "assistant" }] },
      /messages\[1\]\.content to be text, got nothing/,
    ],
    [
      "content that is no text",
      { messages: [{ role: "user", content: 3 }] },
      /content to be text, got number 3/,
    ],
    [
      "an image",
      { messages: [{ role: "user", content: [{ type: "image" }] }] },
      /content\[0\] to be a text part, got string "image"/,
    ],
    ["half a surrogate pair", { text: "a\ud83d" }, /half a surrogate pair \(\\ud83d\) at 1/],
    [
      "a call without a name",
      { messages: [{ role: "assistant", tool_calls: [{}] }] },
      /tool_calls\[0\] to be \{ function/,
    ],
    [
      "arguments of a number",
      { messages: [{ role: "assistant", tool_calls: [{ name: "a", arguments: 1 }] }] },
      /arguments to be an object or its JSON/,
    ],
    ["turns after text", { prompt: "a", completion: [answer] }, /both text or both lists of turns/],
    [
      "turns without an answer",
      { prompt: [user], completion: [user] },
      /completion to hold an assistant turn/,
    ],
    [
      "an empty completion",
      { prompt: "a", completion: "" },
      /completion to be text, got an empty one/,
    ],
    ["an empty output", { instruction: "a", output: "" }, /output to be text/],
    [
      "an empty instruction",
      { instruction: "", input: "", output: "a" },
      /instruction or input to be text, got neither/,
    ],
    [
      "a history of text",
      { instruction: "a", output: "b", history: ["Hi"] },
      /history\[0\] to be \[question, answer\]/,
    ],
    ["no conversations", { conversations: [] }, /at least one turn/],
    [
      "a turn without value",
      { conversations: [{ from: "human" }] },
      /conversations\[0\] to be \{ from, value \}/,
    ],
    [
      "an unknown speaker",
      { conversations: [{ from: "humann", value: "Hi" }] },
      /from to be one of system, human/,
    ],
    [
      "a call that is no JSON",
      { conversations: [{ from: "function_call", value: "add 1" }] },
      /value to be the call as JSON/,
    ],
    ["an empty text", { text: "" }, /Expected text, got an empty one/],
  ])("refuses %s", (_, value, message) => {
    const parse = (): unknown => parseRow(value);
    expect(parse).toThrow(expect.objectContaining({ code: "data-row" }));
    expect(parse).toThrow(message);
  });

  it.each([
    [{ message: [user] }, 'Did you mean "messages"?'],
    [{ promt: "a", completion: "b" }, 'Did you mean "prompt"?'],
    [{ messages: [{ role: "asistant", content: "" }] }, 'Did you mean "assistant"?'],
  ])("suggests the nearest name for %j", (row, hint) => {
    expect(() => parseRow(row)).toThrow(expect.objectContaining({ hint }));
  });
});
