import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { createChatTemplate } from "../data/chat-template.ts";
import { createTokenizer } from "../data/tokenizer.ts";
import { dataPreview, type DataPreviewOptions } from "./data-preview.ts";

const read = (name: string): Record<string, unknown> =>
  JSON.parse(
    readFileSync(new URL(`../../models/storyteller-6m/${name}`, import.meta.url), "utf8"),
  ) as Record<string, unknown>;
const config = read("tokenizer_config.json");
const folder = mkdtempSync(join(tmpdir(), "preview-"));
afterAll(() => rmSync(folder, { recursive: true }));

async function preview(
  rows: readonly object[],
  more: Partial<DataPreviewOptions> = {},
): Promise<string> {
  const path = join(folder, "chats.jsonl");
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  let text = "";
  const options: DataPreviewOptions = {
    paths: [path],
    tokenizer: createTokenizer({ tokenizer: read("tokenizer.json"), config }),
    template: createChatTemplate(config["chat_template"] as string),
    trainOn: "completion",
    maxLength: 1024,
    color: false,
    ...more,
  };
  await dataPreview(options, (part) => (text += part));
  return text.replaceAll(path, basename(path));
}

const chat = (content: string): object => ({
  messages: [
    { role: "user", content: "Who are you?" },
    { role: "assistant", content },
  ],
});

describe("data preview", () => {
  it("shows samples with what is trained, and what was read", async () => {
    expect(
      await preview([chat("A\nbird."), chat("A bird."), { messages: [] }], {
        count: 1,
        skipBadRows: true,
      }),
    ).toMatchInlineSnapshot(`
      "Sample 1 of 2: 21 tokens, 6 trained
      <|im_start|>user
      Who are you?<|im_end|>
      <|im_start|>assistant
      ⟦A⟧
      ⟦bird.<|im_end|>⟧

      2 samples of 3 rows, 40 tokens, 10 of them trained (25.0 %), longest sample 21
      What stands in ⟦ ⟧ is trained.
      Warning: 1 of 3 rows are bad and left out: chats.jsonl:3: Expected messages to hold at least one turn, got none.
      "
    `);
  });

  it("colours what is trained", async () => {
    const text = await preview([chat("A\nbird.")], { color: true });
    expect(text).toContain("\u001b[32mA\u001b[39m\n\u001b[32mbird.<|im_end|>\u001b[39m");
    expect(text).not.toContain("⟦");
  });

  it("shows control characters instead of sending them to the terminal", async () => {
    const text = await preview([chat("a\u001b[31mred\u0007\u009b2J\u202ex")]);
    expect(text).toContain("⟦a\\u001b[31mred\\u0007\\u009b2J\\u202ex<|im_end|>⟧");
  });

  it("reads no more rows than it is told to", async () => {
    const rows = [chat("one"), chat("two"), { broken: true }];
    expect(await preview(rows, { limit: 2 })).toContain("2 samples of 2 rows");
    await expect(preview(rows)).rejects.toMatchObject({ code: "data-row" });
  });

  it("shows which samples are packed into one row, and where each begins", async () => {
    const rows = [chat("A bird."), chat("A\nbird."), chat("A bird that sings.")];
    const lengths = { maxLength: 64, contextLength: 45, seed: 1 };
    const packed = { ...lengths, packing: true };
    expect(await preview(rows, packed)).toMatchInlineSnapshot(`
      "Row 1 of 2: 1 sample, 19 of 45 tokens
      ── Sample 1: tokens 0 to 18, 4 trained, chats.jsonl:1
      <|im_start|>user
      Who are you?<|im_end|>
      <|im_start|>assistant
      ⟦A bird.<|im_end|>⟧

      Row 2 of 2: 2 samples, 43 of 45 tokens
      ── Sample 1: tokens 0 to 21, 7 trained, chats.jsonl:3
      <|im_start|>user
      Who are you?<|im_end|>
      <|im_start|>assistant
      ⟦A bird that sings.<|im_end|>⟧
      ── Sample 2: tokens 22 to 42, 6 trained, chats.jsonl:2
      <|im_start|>user
      Who are you?<|im_end|>
      <|im_start|>assistant
      ⟦A⟧
      ⟦bird.<|im_end|>⟧

      3 samples of 3 rows, 62 tokens, 17 of them trained (27.4 %), longest sample 22
      What stands in ⟦ ⟧ is trained.
      Warning: max_length is 64, the model sees 45 tokens: samples end there.
      "
    `);
    const { packing, rows: shown } = JSON.parse(
      await preview(rows, { ...packed, count: 1, json: true }),
    ) as { packing: object; rows: { tokens: number; samples: { row: string }[] }[] };
    expect(packing).toEqual({ rows: 2, capacity: 45 });
    expect(shown).toHaveLength(1);
  });

  it("gives the same as JSON", async () => {
    const { report, samples } = JSON.parse(await preview([chat("A bird.")], { json: true })) as {
      report: { samples: number; warnings: unknown[] };
      samples: { tokens: number; trainedTokens: number; pieces: { text: string }[] }[];
    };
    expect(report).toMatchObject({ samples: 1, warnings: [] });
    expect(samples[0]!.pieces.map(({ text }) => text)).toEqual([
      "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n",
      "A bird.<|im_end|>",
    ]);
    expect(samples[0]!.trainedTokens).toBeLessThan(samples[0]!.tokens);
  });
});
