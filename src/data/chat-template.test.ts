import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { renderAnswers, turnEnding } from "./chat-spans.ts";
import { type ChatTemplate, createChatTemplate, type Span } from "./chat-template.ts";
import { DEFAULT_CHAT_TEMPLATE } from "./default-chat-template.ts";
import type { Message } from "./message.ts";

const fixture = JSON.parse(
  readFileSync(new URL("fixtures/chat-templates.json", import.meta.url), "utf8"),
) as {
  templates: Record<string, string>;
  chats: Record<string, Message[]>;
  tools: object[];
  cases: {
    template: string;
    chat: string;
    prompt: boolean;
    tools: boolean;
    text?: string;
    spans?: [number, number][];
  }[];
};
const make = (source: string): ChatTemplate =>
  createChatTemplate(source, { bosToken: "<s>", eosToken: "</s>" });
const templates = Object.fromEntries(
  Object.entries(fixture.templates).map(([name, source]) => [name, make(source)]),
);
const code = (expected: string): unknown => expect.objectContaining({ code: expected });

describe("chat template", () => {
  it.each(fixture.cases)("renders $template/$chat (prompt: $prompt) as transformers", (given) => {
    const render = (): unknown =>
      templates[given.template]!.render(fixture.chats[given.chat]!, {
        tools: given.tools ? fixture.tools : undefined,
        addGenerationPrompt: given.prompt,
      });
    if (given.text === undefined) expect(render).toThrow(code("chat-template"));
    else
      expect(render()).toEqual({
        text: given.text,
        generated: (given.spans ?? []).map(([start, end]) => ({ start, end })),
      });
  });

  it("tells the template's own reason when it refuses a chat", () => {
    const render = (): unknown => templates["llama2"]!.render(fixture.chats["system"]!);
    expect(render).toThrow(/roles must alternate/);
  });

  it("is rendered twice for the answer of a chat, once what it puts around answers is known", () => {
    const chat = templates["storyteller"]!;
    let renders = 0;
    const render: ChatTemplate["render"] = (...given) => (renders++, chat.render(...given));
    const counting = { ...chat, render };
    renderAnswers(counting, fixture.chats["one"]!);
    renders = 0;
    renderAnswers(counting, fixture.chats["one"]!);
    expect(renders).toBe(2);
  });

  it.each(["{% for x in %}", "{{ 'open }}", "{% if a %}", "{% generation %}a"])(
    "refuses %s, which does not parse",
    (source) => {
      expect(() => make(source)).toThrow(code("chat-template"));
    },
  );

  it("gives templates a clock that stands still, in English", () => {
    const now = new Date(2024, 6, 6, 15, 4, 5);
    const source = "{{ strftime_now('%d %b %Y|%e %B %A %I:%M %p %% %Q') }}";
    const { text } = createChatTemplate(source, { now }).render([]);
    expect(text).toBe("06 Jul 2024| 6 July Saturday 03:04 PM % %Q");
  });

  it("passes range, tojson and further variables", () => {
    const source =
      "{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}{{ tools | tojson }}{{ mood }}";
    const tools = [{ a: [1, 2.5, true, null, "é"] }];
    const { text } = make(source).render([], { tools, variables: { mood: "!" } });
    expect(text).toBe('531[{"a": [1, 2.5, true, null, "é"]}]!');
  });

  it("is the one for tools, where a model has one, in chats that have tools", () => {
    const template = createChatTemplate("plain", { withTools: "with {{ tools | length }}" });
    const chat = [{ role: "user", content: "x" }] as const;
    expect(template.render(chat, { tools: [{ name: "f" }] }).text).toBe("with 1");
    expect(template.render(chat, { tools: [] }).text).toBe("plain");
    expect(template.render(chat).text).toBe("plain");
  });

  it("refuses text with the characters that mark spans", () => {
    const chat: Message[] = [{ role: "user", content: "a\ufdd0b" }];
    expect(() => templates["plain"]!.render(chat)).toThrow(code("chat-template"));
    expect(() => templates["plain"]!.render(chat)).toThrow(code("chat-template"));
  });
});

/** The chat with each answer in brackets. */
function bracketed(template: ChatTemplate, chat: string): string {
  const tools = chat === "tools" ? fixture.tools : undefined;
  const { text, answers } = renderAnswers(template, fixture.chats[chat]!, { tools });
  const show = ({ start, end }: Span): string => `⟦${text.slice(start, end)}⟧`;
  return answers.map(show).join("");
}

describe("answers of a chat", () => {
  const twoOf = (end: string, last = ""): string =>
    `⟦Hello, friend.${end}⟧⟦${last}Once upon a time…\n\nThe end.${end}⟧`;
  const call = '{"town": "Zürich", "days": 2, "exact": true, "note": null}';
  const qwenCall = `<tool_call>\n{"name": "weather", "arguments": ${call}}\n</tool_call><|im_end|>`;
  const noThoughts = "<think>\n\n</think>\n\n";

  it.each([
    ["storyteller", "one", "⟦A lorikeet.<|im_end|>⟧"],
    ["storyteller", "two", twoOf("<|im_end|>")],
    ["storyteller", "spaces", "⟦  padded answer\n<|im_end|>⟧⟦\n\nnext\n\n<|im_end|>⟧"],
    ["storyteller", "same", "⟦yes<|im_end|>⟧⟦yes<|im_end|>⟧"],
    ["storyteller", "unanswered", "⟦Hello<|im_end|>⟧"],
    ["storyteller", "markup", "⟦{{ x }} {% y %} <|im_start|>assistant\n><|im_end|>⟧"],
    ["tagged", "two", twoOf("<|im_end|>")],
    ["tagged", "spaces", "⟦  padded answer\n<|im_end|>⟧⟦\n\nnext\n\n<|im_end|>⟧"],
    ["llama3", "two", twoOf("<|eot_id|>")],
    ["llama3", "spaces", "⟦padded answer<|eot_id|>⟧⟦next<|eot_id|>⟧"],
    ["llama3", "system", "⟦Yo<|eot_id|>⟧"],
    [
      "llama3",
      "tools",
      `⟦{"name": "weather", "parameters": ${call}}<|eot_id|>⟧⟦Yes, 21.5 °C.<|eot_id|>⟧`,
    ],
    ["qwen3", "one", `⟦${noThoughts}A lorikeet.<|im_end|>⟧`],
    ["qwen3", "two", twoOf("<|im_end|>", noThoughts)],
    ["qwen3", "same", `⟦yes<|im_end|>⟧⟦${noThoughts}yes<|im_end|>⟧`],
    ["qwen3", "thoughts", "⟦2<|im_end|>⟧⟦<think>\nTwo and two.\n</think>\n\n4<|im_end|>⟧"],
    ["qwen3", "tools", `⟦${qwenCall}⟧⟦${noThoughts}Yes, 21.5 °C.<|im_end|>⟧`],
    ["llama2", "two", twoOf(" </s>")],
    ["llama2", "spaces", "⟦padded answer </s>⟧⟦next </s>⟧"],
    ["llama2", "same", "⟦yes </s>⟧⟦yes </s>⟧"],
    ["plain", "two", "⟦ Hello, friend.\n⟧⟦ Once upon a time…\n\nThe end.\n⟧"],
    ["r1", "two", twoOf("</s>")],
    ["r1", "thoughts", "⟦\n\n2</s>⟧⟦\n\n4</s>⟧"],
  ])("%s/%s are what the assistant says and what ends the turn", (template, chat, expected) => {
    expect(bracketed(templates[template]!, chat)).toBe(expected);
  });

  it.each([
    [
      "a template that leaves answers out",
      "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
    ],
    [
      "a template that shows them twice",
      "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
    ],
    [
      "tags around no assistant turn",
      "{% for m in messages %}{% if m.role == 'tool' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}",
    ],
  ])("can't be found in %s: an error says so", (_, source) => {
    expect(() => renderAnswers(make(source), fixture.chats["one"]!)).toThrow(code("chat-spans"));
  });
});

describe("default chat template", () => {
  const template = make(DEFAULT_CHAT_TEMPLATE);

  it.each(["one", "two", "spaces", "same", "system", "unanswered"])(
    "renders %s as plain ChatML does",
    (chat) => {
      for (const addGenerationPrompt of [false, true]) {
        const options = { addGenerationPrompt };
        const plain = templates["storyteller"]!.render(fixture.chats[chat]!, options).text;
        expect(template.render(fixture.chats[chat]!, options).text).toBe(plain);
      }
      expect(bracketed(template, chat)).toBe(bracketed(templates["storyteller"]!, chat));
    },
  );

  it("shows tools, calls and answers of tools", () => {
    const { text } = template.render(fixture.chats["tools"]!, { tools: fixture.tools });
    expect(text).toMatchInlineSnapshot(`
      "<|im_start|>system
      You know the weather.

      # Tools

      You may call these functions:
      <tools>
      {"type": "function", "function": {"name": "weather", "description": "Temperature of a town in °C", "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}}}
      </tools>
      Answer with <tool_call>
      {"name": …, "arguments": {…}}
      </tool_call> to call one.<|im_end|>
      <|im_start|>user
      Is it warm in Zürich?<|im_end|>
      <|im_start|>assistant
      <tool_call>
      {"name": "weather", "arguments": {"town": "Zürich", "days": 2, "exact": true, "note": null}}
      </tool_call><|im_end|>
      <|im_start|>tool
      {"celsius": 21.5}<|im_end|>
      <|im_start|>assistant
      Yes, 21.5 °C.<|im_end|>
      "
    `);
    expect(bracketed(template, "tools")).toMatch(
      /^⟦<tool_call>\n.*"arguments": \{"town": "Zürich".*<\/tool_call><\|im_end\|>⟧⟦Yes, 21.5 °C.<\|im_end\|>⟧$/s,
    );
  });

  it("ends turns as each template does", () => {
    const endings = Object.entries(templates).map(([name, each]) => [name, turnEnding(each)]);
    expect(Object.fromEntries(endings)).toEqual({
      storyteller: "<|im_end|>",
      tagged: "<|im_end|>",
      qwen3: "<|im_end|>",
      llama3: "<|eot_id|>",
      llama2: " </s>",
      plain: "\n",
      r1: "</s>",
    });
  });
});
