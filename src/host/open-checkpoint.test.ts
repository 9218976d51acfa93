import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openFolder } from "./open-checkpoint.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lorikeet-open-"));
  await cp("test/fixtures/models/llama", folder, { recursive: true });
});
afterEach(() => rm(folder, { recursive: true }));

test("chat templates are found by name in tokenizer_config.json, or in files of their own", async () => {
  const named = [
    { name: "default", template: "plain" },
    { name: "tool_use", template: "tools" },
  ];
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify({ chat_template: named }));
  const found = { chatTemplate: "plain", toolTemplate: "tools" };
  expect(await openFolder(folder)).toMatchObject(found);
  await mkdir(join(folder, "additional_chat_templates"));
  await writeFile(join(folder, "additional_chat_templates/tool_use.jinja"), "tools in a file");
  await writeFile(join(folder, "chat_template.jinja"), "plain in a file");
  const files = { chatTemplate: "plain in a file", toolTemplate: "tools in a file" };
  expect(await openFolder(folder)).toMatchObject(files);
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify({ chat_template: "old" }));
  await rm(join(folder, "chat_template.jinja"));
  await rm(join(folder, "additional_chat_templates"), { recursive: true });
  expect(await openFolder(folder)).toMatchObject({ chatTemplate: "old", toolTemplate: undefined });
});

test("a configuration that is no object, and a chat template that is no text, are refused by name", async () => {
  for (const template of [5, { default: "x" }, [{ name: "default", template: 5 }]]) {
    const config = JSON.stringify({ chat_template: template });
    await writeFile(join(folder, "tokenizer_config.json"), config);
    await expect(openFolder(folder)).rejects.toMatchObject({
      code: "chat-template",
      message: expect.stringContaining(`tokenizer_config.json to be a text`) as string,
    });
  }
  await writeFile(join(folder, "chat_template.jinja"), "plain in a file"); // it wins over the other
  expect(await openFolder(folder)).toMatchObject({ chatTemplate: "plain in a file" });
  for (const text of ["null", "[]", "5"]) {
    await writeFile(join(folder, "config.json"), text);
    await expect(openFolder(folder)).rejects.toMatchObject({
      code: "malformed-json",
      message: expect.stringContaining(`config.json to hold a JSON object, got ${text}`) as string,
    });
  }
});
