import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { LorikeetError } from "../errors.ts";
import { createChatTemplate } from "./chat-template.ts";
import { buildDataset, type Dataset, type DatasetOptions } from "./dataset.ts";
import type { SourceRow } from "./read/source-row.ts";
import { createTokenizer } from "./tokenizer.ts";

const read = (name: string): Record<string, unknown> =>
  JSON.parse(
    readFileSync(new URL(`../../models/storyteller-6m/${name}`, import.meta.url), "utf8"),
  ) as Record<string, unknown>;
const config = read("tokenizer_config.json");
const tokenizer = createTokenizer({ tokenizer: read("tokenizer.json"), config });
const template = createChatTemplate(config["chat_template"] as string);
const base: DatasetOptions = { tokenizer, template, trainOn: "completion", maxLength: 64 };

async function* source(values: readonly unknown[]): AsyncGenerator<SourceRow> {
  for (const [i, value] of values.entries()) {
    const place = { file: "a.jsonl", line: i + 1 };
    yield value instanceof LorikeetError ? { place, fault: value } : { place, value };
  }
}
const build = (values: readonly unknown[], more: Partial<DatasetOptions> = {}): Promise<Dataset> =>
  buildDataset(source(values), { ...base, ...more });

const pair = (i: number): object => ({ prompt: `Question ${i}?`, completion: ` Answer ${i}.` });
const question = { messages: [{ role: "user", content: "Hi" }] };
const pairs = (count: number): object[] => Array.from({ length: count }, (_, i) => pair(i));
const fault = new LorikeetError("data-syntax", "Expected one JSON value, got: }");

describe("buildDataset", () => {
  it("counts rows, tokens and targets", async () => {
    const { report, store, train, validation } = await build([...pairs(3), { text: "Once upon" }]);
    expect(report).toMatchObject({
      rows: 4,
      badRows: 0,
      untrainedRows: 0,
      cutRows: 0,
      cutTokens: 0,
      samples: 4,
      warnings: [],
    });
    expect(report.tokens).toBe(store.lengths.reduce((a, b) => a + b));
    expect(report.supervisedTokens).toBe(store.supervised.reduce((a, b) => a + b));
    expect(report.longest).toBe(Math.max(...store.lengths));
    expect([...train]).toEqual([0, 1, 2, 3]);
    expect(validation).toHaveLength(0);
    const first = await store.read(0);
    expect(tokenizer.decode(first.inputIds)).toBe("Question 0? Answer 0.<|endoftext|>");
  });

  it("stops at bad rows and lists them all with file, line and reason", async () => {
    await expect(build([pair(0), { promt: "a" }])).rejects.toMatchObject({
      code: "data-row",
      message: expect.stringMatching(/^a\.jsonl:2: Expected the columns .*, got promt$/) as string,
      hint: 'Did you mean "prompt"?',
    });
    const several = build([pair(0), fault, pair(1), { text: "" }]);
    await expect(several).rejects.toMatchObject({
      code: "data-rows",
      message:
        "Expected rows that can be trained on, found 2 faults:\n" +
        "  - a.jsonl:2: Expected one JSON value, got: }\n" +
        "  - a.jsonl:4: Expected text, got an empty one",
    });
    const many = build(Array.from({ length: 100 }, () => fault));
    await expect(many).rejects.toThrow(/a\.jsonl:20: /);
    await expect(many).rejects.not.toThrow(/a\.jsonl:21: /);
  });

  it("counts bad rows instead when told to skip them", async () => {
    const { report } = await build([fault, pair(0), { a: 1 }], { skipBadRows: true });
    expect(report).toMatchObject({ rows: 3, badRows: 2, samples: 1 });
    expect(report.warnings).toEqual([
      {
        code: "data-skipped",
        message: expect.stringMatching(
          /^2 of 3 rows are bad and left out: a\.jsonl:1: .*; a\.jsonl:3: /,
        ) as string,
      },
    ]);
    await expect(build([fault], { skipBadRows: true })).rejects.toMatchObject({
      code: "data-empty",
      message: expect.stringContaining("only bad ones: a.jsonl:1: ") as string,
    });
  });

  it("counts a chat that the template refuses as a bad row", async () => {
    const strict = createChatTemplate("{{ raise_exception('No chats today') }}");
    await expect(build([question], { template: strict })).rejects.toMatchObject({
      code: "chat-template",
      message: expect.stringMatching(/^a\.jsonl:1: .*No chats today/) as string,
    });
  });

  it("has no data set without rows or without anything to train", async () => {
    await expect(build([])).rejects.toMatchObject({ code: "data-empty" });
    await expect(build([question, question])).rejects.toMatchObject({
      code: "data-unsupervised",
      message: "Expected tokens to train on (train_on: completion), got none in 2 rows",
      hint: expect.stringContaining("data preview") as string,
    });
    const long = { prompt: "word ".repeat(100), completion: "end" };
    await expect(build([long])).rejects.toMatchObject({
      code: "data-unsupervised",
      hint: expect.stringMatching(/^In 1 rows the answers begin after max_length \(64\)/) as string,
    });
  });

  it("warns of cut and untrained rows, of a short context and of a template that stands in", async () => {
    const long = { prompt: "a", completion: " word".repeat(100) };
    const lost = { prompt: "word ".repeat(100), completion: "end" };
    const chat = [...question.messages, { role: "assistant", content: "Hello" }];
    const { report } = await build([long, lost, question, { messages: chat }], {
      maxLength: 100,
      contextLength: 32,
      template: createChatTemplate(undefined),
    });
    expect(report).toMatchObject({ cutRows: 2, untrainedRows: 2, samples: 2, longest: 32 });
    expect(report.warnings.map(({ code }) => code)).toEqual([
      "data-context",
      "data-cut",
      "data-untrained",
      "default-chat-template",
    ]);
    expect(report.warnings[0]!.message).toContain("max_length is 100, the model sees 32 tokens");
    expect(report.warnings[1]!.message).toContain("2 of 4 rows are longer than 32 tokens");
    expect(report.warnings[2]!.message).toContain("(1 because their answers were cut off)");
  });

  it("holds out the same rows whatever their order, and equal rows together", async () => {
    const heldOut = async (values: readonly object[], seed = 1): Promise<string[]> => {
      const data = await build(values, { validationFraction: 0.2, seed });
      const texts = [...data.validation].map(async (sample) =>
        tokenizer.decode((await data.store.read(sample)).inputIds),
      );
      expect(data.train.length + data.validation.length).toBe(values.length);
      return (await Promise.all(texts)).sort();
    };
    const rows = pairs(50);
    const held = await heldOut(rows);
    expect(held).toHaveLength(10);
    expect(await heldOut(rows.toReversed())).toEqual(held);
    expect(await heldOut(rows, 2)).not.toEqual(held);
    const doubled = await heldOut([...rows, ...rows]);
    expect(doubled).toEqual([...held, ...held].sort());
    await expect(heldOut([pair(1)])).rejects.toMatchObject({ code: "data-split" });
    await expect(heldOut([pair(1), pair(1)])).rejects.toMatchObject({ code: "data-split" });
  });

  it("warns of tools and calls that the template does not show, and of none that it does", async () => {
    const call = { name: "look", arguments: {} };
    const calling = { messages: [...question.messages, { role: "assistant", tool_calls: [call] }] };
    const offering = { messages: [...question.messages, { role: "assistant", content: "Yes" }], tools: [{ name: "look" }] }; // prettier-ignore
    const { report } = await build([calling, offering, pair(0)]);
    expect(report.warnings).toMatchObject([
      { code: "data-tools", message: expect.stringMatching(/^2 of 3 rows/) as string },
    ]);
    const shows = createChatTemplate(
      "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.tool_calls | tojson }}\n{% endfor %}{{ tools | tojson }}",
    );
    const shown = await build([calling], { template: shows });
    expect(shown.report.warnings).toEqual([]);
  });

  it("passes on errors that are no faults of rows, and tells how far it is", async () => {
    const broken = async function* (): AsyncGenerator<SourceRow> {
      yield* source([pair(0)]);
      throw new LorikeetError("file-not-found", "gone");
    };
    await expect(buildDataset(broken(), { ...base, skipBadRows: true })).rejects.toMatchObject({
      code: "file-not-found",
    });
    const seen: number[] = [];
    await build(pairs(70), { onProgress: (rows) => seen.push(rows) });
    expect(seen).toEqual([32, 64, 70]);
  });

  it("tells data sets apart by fingerprint", async () => {
    const of = async (values: object[], more?: Partial<DatasetOptions>): Promise<string> =>
      (await build(values, more)).store.fingerprint;
    const fingerprint = await of(pairs(4));
    expect(fingerprint).toMatch(/^[0-9a-f]{16}$/);
    expect(await of(pairs(4))).toBe(fingerprint);
    expect(await of(pairs(5))).not.toBe(fingerprint);
    expect(await of(pairs(4).reverse())).not.toBe(fingerprint);
    expect(await of(pairs(4), { trainOn: "all" })).not.toBe(fingerprint);
  });
});
