import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createChatTemplate } from "./chat-template.ts";
import { type Example, type ExampleOptions, examplesOf, supervisedTokens } from "./examples.ts";
import { parseRow } from "./rows.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";

const read = (path: string): unknown =>
  JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));
const { templates, chats, tools } = read("fixtures/chat-templates.json") as {
  templates: Record<string, string>;
  chats: Record<string, object[]>;
  tools: object[];
};
const { styles } = read("fixtures/tokenizers.json") as {
  styles: Record<string, { tokenizer: object }>;
};
const model = "../../models/storyteller-6m";
const storyteller = createTokenizer({
  tokenizer: read(`${model}/tokenizer.json`),
  config: read(`${model}/tokenizer_config.json`) as Record<string, unknown>,
});
const style = (name: string): Tokenizer =>
  createTokenizer({
    tokenizer: styles[name]!.tokenizer,
    config: { bos_token: "<s>", eos_token: "</s>" },
  });

const options = (more: Partial<ExampleOptions> & { name?: string } = {}): ExampleOptions => ({
  tokenizer: storyteller,
  template: createChatTemplate(templates[more.name ?? "storyteller"], {
    bosToken: "<s>",
    eosToken: "</s>",
  }),
  trainOn: "completion",
  maxLength: 1024,
  ...more,
});

/** The sample's text with runs of trained tokens in brackets. */
function show(example: Example, tokenizer: Tokenizer = storyteller): string {
  const ids = [...example.inputIds];
  let text = "";
  for (let start = 0; start < ids.length;) {
    let end = start + 1;
    while (end < ids.length && example.labelMask[end] === example.labelMask[start]) end++;
    const run = tokenizer.decode(ids.slice(start, end));
    text += example.labelMask[start] ? `⟦${run}⟧` : run;
    start = end;
  }
  return text;
}

const shown = (row: unknown, given: ExampleOptions = options()): string[] =>
  examplesOf(parseRow(row), given).examples.map((example) => show(example, given.tokenizer));

describe("examplesOf a chat", () => {
  const messages = chats["two"];
  const head = "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n";
  const middle = "\n<|im_start|>user\nTell me more <b>now</b>.<|im_end|>\n<|im_start|>assistant\n";
  const [first, second] = ["Hello, friend.<|im_end|>", "Once upon a time…\n\nThe end.<|im_end|>"];

  it("trains on what the assistant says and on the ends of its turns", () => {
    expect(shown({ messages })).toEqual([`${head}⟦${first}⟧${middle}⟦${second}⟧`]);
    const tagged = shown({ messages }, options({ name: "tagged" }));
    expect(tagged).toEqual([`${head}⟦${first}⟧${middle}⟦${second}⟧`]);
  });

  it("trains on the other tokens, or on all, when asked to", () => {
    const prompt = shown({ messages }, options({ trainOn: "prompt" }));
    expect(prompt).toEqual([`<|im_start|>⟦${head.slice(12)}⟧${first}⟦${middle}⟧${second}⟦\n⟧`]);
    const all = shown({ messages }, options({ trainOn: "all" }));
    expect(all).toEqual([`<|im_start|>⟦${head.slice(12)}${first}${middle}${second}\n⟧`]);
  });

  it("gives the ids of the whole text, whatever is trained", () => {
    const { template } = options();
    const text = template.render(chats["two"] as never).text;
    const ids = storyteller.encode(text, { addSpecialTokens: false });
    for (const trainOn of ["completion", "prompt", "all"] as const) {
      const [example] = examplesOf(parseRow({ messages }), options({ trainOn })).examples;
      expect([...example!.inputIds]).toEqual(ids.slice(0, example!.inputIds.length));
      expect(example!.labelMask[0]).toBe(0);
    }
  });

  it("shows templates one date, so that a run can be continued on another day", () => {
    const source =
      "{{ strftime_now('%d %b %Y') }}{% for m in messages %}<{{ m.content }}>{% endfor %}";
    const template = createChatTemplate(source, { now: new Date(2031, 0, 1) });
    for (const trainOn of ["completion", "all"] as const)
      expect(shown({ messages }, options({ template, trainOn }))[0]).toMatch(/2⟦?6 Jul 2024/);
  });

  it("leaves out turns that are marked so", () => {
    const [hi, hello, more, once] = messages as [object, object, object, object];
    expect(shown({ messages: [hi, { ...hello, weight: 0 }, more, once] })).toEqual([
      `${head}${first}${middle}⟦${second}⟧`,
    ]);
    expect(shown({ prompt: [hi, hello, more], completion: [once] })).toEqual([
      `${head}${first}${middle}⟦${second}⟧`,
    ]);
  });

  it.each(["gpt2", "llama3", "qwen2", "llama2", "metaspace", "smollm2"])(
    "finds the same answers with a tokenizer in the style of %s",
    (name) => {
      for (const template of Object.keys(templates).filter((key) => key !== "llama2")) {
        const given = options({ tokenizer: style(name), name: template });
        const reference = options({ name: template });
        // decoders of SentencePiece drop the space that a run begins with
        const trained = (text: string[]): unknown =>
          text[0]!.replaceAll("⟦ ", "⟦").match(/⟦.*?⟧/gs);
        expect(trained(shown({ messages }, given))).toEqual(
          trained(shown({ messages }, reference)),
        );
      }
    },
  );

  it("trains on tool calls, not on what tools answer", () => {
    const [text] = shown({ messages: chats["tools"], tools }, options({ name: "qwen3" }));
    expect(text).toMatch(
      /assistant\n⟦<tool_call>\n\{"name": "weather".*<\/tool_call><\|im_end\|>⟧\n/s,
    );
    expect(text).toMatch(/⟧\n<\|im_start\|>user\n<tool_response>\n\{"celsius": 21.5\}/);
    expect(text!.match(/⟦/g)).toHaveLength(2);
  });

  it("finds answers after text that a normalizer changes", () => {
    const given = options({ tokenizer: style("qwen2") });
    const row = {
      messages: [
        { role: "user", content: "e\u0301?" },
        { role: "assistant", content: "yes" },
      ],
    };
    expect(shown(row, given)).toEqual([
      "<|im_start|>user\n\u00e9?<|im_end|>\n<|im_start|>assistant\n⟦yes<|im_end|>⟧",
    ]);
  });

  it("cuts long samples at the end and tells how many tokens went", () => {
    const whole = examplesOf(parseRow({ messages }), options());
    const length = whole.examples[0]!.inputIds.length;
    expect(whole.cutTokens).toBe(0);
    const { examples, cutTokens } = examplesOf(parseRow({ messages }), options({ maxLength: 20 }));
    expect(cutTokens).toBe(length - 20);
    expect(examples).toEqual([
      {
        inputIds: whole.examples[0]!.inputIds.slice(0, 20),
        labelMask: whole.examples[0]!.labelMask.slice(0, 20),
      },
    ]);
    const short = examplesOf(parseRow({ messages }), options({ maxLength: 5 })).examples[0]!;
    expect(supervisedTokens(short)).toBe(0);
  });

  it("has nothing to train in a chat without answers", () => {
    const { examples } = examplesOf(parseRow({ messages: messages!.slice(0, 1) }), options());
    expect(examples.map(supervisedTokens)).toEqual([0]);
  });
});

describe("examplesOf a completion", () => {
  const row = { prompt: "Once upon a ti", completion: "me there was" };

  it("trains on the completion and the end of text", () => {
    expect(shown({ prompt: "Q: 1+1\nA:", completion: " 2" })).toEqual([
      "Q: 1+1\nA:⟦ 2<|endoftext|>⟧",
    ]);
    expect(shown({ prompt: "", completion: "Once" })).toEqual(["O⟦nce<|endoftext|>⟧"]);
  });

  it("counts a token that spans the seam as part of the completion", () => {
    const [text] = shown(row);
    expect(text).toBe("Once upon a⟦ time there was<|endoftext|>⟧");
  });

  it("trains on the prompt, or on all, when asked to", () => {
    expect(shown(row, options({ trainOn: "prompt" }))).toEqual(["O⟦nce upon a⟧"]);
    expect(shown(row, options({ trainOn: "all" }))).toEqual([
      "O⟦nce upon a time there was<|endoftext|>⟧",
    ]);
  });

  it("keeps what the post-processor adds out of the loss, and adds no second end", () => {
    const given = options({ tokenizer: style("llama3") });
    expect(shown({ prompt: "The ", completion: "dog</s>" }, given)).toEqual(["<s>The⟦ dog</s>⟧"]);
    expect(shown({ prompt: "The", completion: " dog" }, given)).toEqual(["<s>The⟦ dog</s>⟧"]);
  });
});

describe("examplesOf a text", () => {
  it("trains on all tokens, up to the end of text", () => {
    for (const trainOn of ["completion", "prompt", "all"] as const)
      expect(shown({ text: "Once upon a time" }, options({ trainOn }))).toEqual([
        "O⟦nce upon a time<|endoftext|>⟧",
      ]);
    expect(shown({ text: "Once upon", continues: true })).toEqual(["O⟦nce upon⟧"]);
  });

  it("splits long texts so that each token but the first is trained once", () => {
    const text = "It was a dark and stormy night; the rain fell in torrents, except at intervals.";
    const [whole] = examplesOf(parseRow({ text }), options()).examples;
    for (const maxLength of [2, 3, 7, 1000]) {
      const { examples, cutTokens } = examplesOf(parseRow({ text }), options({ maxLength }));
      expect(cutTokens).toBe(0);
      const targets = examples.flatMap(({ inputIds, labelMask }) =>
        [...inputIds].filter((_, i) => labelMask[i] === 1),
      );
      expect(targets).toEqual([...whole!.inputIds.slice(1)]);
      for (const { inputIds } of examples) expect(inputIds.length).toBeLessThanOrEqual(maxLength);
    }
  });
});
