import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { loadModel } from "../api/load-model.ts";
import { createChatTemplate } from "../data/chat-template.ts";
import type { Message } from "../data/message.ts";
import { modelfile } from "./modelfile.ts";
import { saveGguf } from "./save-gguf.ts";

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "lorikeet-modelfile-"));
});
afterAll(() => rm(scratch, { recursive: true }));

const CHATML =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const WITH_BOS =
  "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]{% elif message['role'] == 'system' %}<<SYS>>{{ message['content'] }}<</SYS>>{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}";

/** The TEMPLATE of a Modelfile as Go would render it: the few actions that Lorikeet writes. */
function rendered(file: string, messages: readonly Message[]): string {
  const parts = /^FROM .*\nTEMPLATE """\{\{ \$before := "" \}\}\{\{ range \.Messages \}\}\{\{ if eq \.Role "system" \}\}(.*?)\{\{ \.Content \}\}\{\{ else if eq \.Role "user" \}\}\{\{ if eq \$before "system" \}\}(.*?)\{\{ else if eq \$before "" \}\}(.*?)\{\{ else \}\}(.*?)\{\{ end \}\}\{\{ \.Content \}\}(.*?)\{\{ else \}\}(.*?)\{\{ \.Content \}\}\{\{ end \}\}\{\{ \$before = \.Role \}\}\{\{ end \}\}"""\n$/s.exec(file); // prettier-ignore
  const [system, afterSystem, first, later, ask, answer] = parts!.slice(1) as [string, string, string, string, string, string]; // prettier-ignore
  let [text, before] = ["", ""];
  for (const { role, content } of messages) {
    const start = before === "system" ? afterSystem : before === "" ? first : later;
    if (role === "system") text += `${system}${content}`;
    else if (role === "user") text += `${start}${content}${ask}`;
    else text += `${answer}${content}`;
    before = role;
  }
  return text;
}

const chats: [string, Message[]][] = [
  ["one question", [{ role: "user", content: "Hi" }]],
  ["after a system turn", [{ role: "system", content: "Be kind." }, { role: "user", content: "Hi" }]], // prettier-ignore
  ["a second question", [{ role: "user", content: "Hi" }, { role: "assistant", content: "Squawk" }, { role: "user", content: "Why?" }]], // prettier-ignore
];

it.each(chats)("Go's template renders what Jinja's does, without the text's first token: %s", (_, messages) => {
  for (const [source, bosToken] of [[CHATML, undefined], [WITH_BOS, "<s>"]] as const) {
    const template = createChatTemplate(source, { bosToken, eosToken: "</s>" });
    const file = modelfile({ file: "m.gguf", template, bosToken, stops: [] });
    const { text } = template.render(messages, { addGenerationPrompt: true });
    expect((bosToken ?? "") + rendered(file, messages)).toBe(text);
  }
}); // prettier-ignore

it("stops at what ends a text and at what ends a turn", async () => {
  const { checkpoint } = await loadModel("storyteller-6m");
  const { path } = await saveGguf(checkpoint, join(scratch, "out"), { type: "F16" });
  const text = await readFile(join(path, "Modelfile"), "utf8");
  expect(text).toMatch(/^FROM \.\/storyteller-6m\.F16\.gguf\nTEMPLATE """/);
  expect(text).toContain('PARAMETER stop "<|endoftext|>"\nPARAMETER stop "<|im_end|>"\n');
});

it("a template that no Go template can stand for is left to Ollama", () => {
  const template = createChatTemplate("{{ raise_exception('no') }}", {});
  expect(modelfile({ file: "m.gguf", template, bosToken: undefined, stops: [] })).toBe("FROM ./m.gguf\n"); // prettier-ignore
});
