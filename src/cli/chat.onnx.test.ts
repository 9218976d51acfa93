import { createInterface } from "node:readline/promises";
import { PassThrough } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Captured } from "../../test/support/command.ts";
import { openSession, type Session } from "../api/generate.ts";
import { loadModel } from "../api/load-model.ts";
import { converse } from "./chat.ts";

let session: Session;
beforeAll(async () => {
  session = await openSession(await loadModel("storyteller-6m", { device: "cpu", threads: 1 }));
});
afterAll(() => session.dispose());

/** A conversation on a terminal: `type` presses keys, `shows` waits until `out` has the text or the chat is over. */
function chat(): {
  type: (keys: string) => void;
  shows: (text: RegExp) => Promise<void>;
  ended: Promise<void>;
  out: Captured;
} {
  // prettier-ignore
  const [input, out, screen] = [new PassThrough(), new Captured(), new Captured()];
  const terminal = createInterface({ input, output: screen, terminal: true, prompt: "> " });
  let isOver = false;
  const ended = converse(session, terminal, { out, answers: { maxNewTokens: 900 }, isTyped: true });
  const over = ended.finally(() => (isOver = true));
  const shows = async (text: RegExp): Promise<void> => {
    while (!text.test(out.text) && !isOver) await new Promise((next) => setTimeout(next, 5));
  };
  return { type: (keys) => input.write(keys), shows, ended: over, out };
}

test("Ctrl-C ends an answer, and the next question is answered; at the prompt it ends the chat", async () => {
  const { type, shows, ended, out } = chat();
  type("Who are you?\r");
  await shows(/\w+ \w+/);
  type("\u0003");
  await shows(/\n$/);
  const cut = out.text.length;
  expect(cut).toBeLessThan(900);
  type("And now?\r");
  await shows(new RegExp(`^[^]{${cut + 5}}`));
  type("\u0003");
  await new Promise((next) => setTimeout(next, 200));
  type("\u0003");
  await ended;
  expect(out.text.length).toBeGreaterThan(cut + 5);
}, 60_000);

test("Ctrl-D while it answers ends the chat", async () => {
  const { type, shows, ended, out } = chat();
  type("Who are you?\r");
  await shows(/\w+ \w+/);
  type("\u0004");
  await ended;
  expect(out.text.length).toBeLessThan(900);
}, 60_000);
