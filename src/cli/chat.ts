import { createInterface, type Interface } from "node:readline/promises";
import type { Command } from "commander";
import pc from "picocolors";
import type { GenerateOptions } from "../api/answer-row.ts";
import { openSession, type Session } from "../api/generate.ts";
import type { Message } from "../data/message.ts";
import type { CliContext } from "./context.ts";
import {
  addGenerationOptions,
  type GenerationFlags,
  generateOptions,
  openModel,
} from "./generation-options.ts";

const EXAMPLES = `
Examples:
  lorikeet chat --adapter out
  lorikeet chat --model HuggingFaceTB/SmolLM2-135M-Instruct --temperature 0.7

Ctrl-C ends an answer; an empty line, Ctrl-D or Ctrl-C at the prompt ends the chat; /new begins a new one.`;

/** `lorikeet chat`: a conversation with a model in the terminal. */
export function register(command: Command, context: CliContext): void {
  command.option("--system <text>", "system turn at the beginning");
  addGenerationOptions(command)
    .addHelpText("after", EXAMPLES)
    .action(async (flags: GenerationFlags & { readonly system?: string }) => {
      const session = await openSession(await openModel(flags, context));
      const { stdin } = process;
      try {
        const terminal = createInterface({ input: stdin, output: context.out, prompt: pc.bold("> ") }); // prettier-ignore
        await converse(session, terminal, {
          ...{ out: context.out, answers: generateOptions(flags), isTyped: stdin.isTTY },
          ...(flags.system !== undefined && { system: flags.system }),
        });
      } finally {
        await session.dispose();
      }
    });
}

/** What a conversation needs besides the model. */
interface Conversation {
  readonly out: NodeJS.WritableStream;
  readonly answers: GenerateOptions;
  /** Whether somebody types at a terminal. */
  readonly isTyped: boolean;
  readonly system?: string;
}

/** Answers the lines of `terminal` until an empty one or its end. Ctrl-C ends an answer, at the prompt the chat. */
export async function converse(
  session: Session,
  terminal: Interface,
  { out, answers, isTyped, system }: Conversation,
): Promise<void> {
  const opening: Message[] = system === undefined ? [] : [{ role: "system", content: system }];
  let messages = opening;
  let [isAnswering, isCut, isClosed] = [false, false, false];
  terminal.on("SIGINT", () => {
    if (isAnswering) isCut = true;
    else terminal.close();
  });
  terminal.once("close", () => (isClosed = true));
  const prompt = (): void => {
    if (!isTyped) out.write("> ");
    else if (!isClosed) terminal.prompt(); // after its end it would read for ever
  };
  prompt();
  for await (const line of terminal) {
    if (line.trim() === "") break;
    const isNew = line.trim() === "/new";
    messages = isNew ? opening : [...messages, { role: "user", content: line }];
    if (!isNew) {
      let content = "";
      [isAnswering, isCut] = [true, false];
      for await (const { text } of session.generate(messages, answers)) {
        content += text;
        out.write(text);
        if ((isCut as boolean) || (isTyped && isClosed)) break;
      }
      isAnswering = false;
      messages = [...messages, { role: "assistant", content: content.trim() }];
      out.write("\n");
    }
    prompt();
  }
  terminal.close();
}
