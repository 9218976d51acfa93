import { createInterface } from "node:readline/promises";
import type { Command } from "commander";
import pc from "picocolors";
import { openSession } from "../api/generate.ts";
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

Empty line or Ctrl-D ends the chat; /new begins a new one.`;

/** `lorikeet chat`: a conversation with a model in the terminal. */
export function register(command: Command, context: CliContext): void {
  command.option("--system <text>", "system turn at the beginning");
  addGenerationOptions(command)
    .addHelpText("after", EXAMPLES)
    .action(async (flags: GenerationFlags & { readonly system?: string }) => {
      const session = await openSession(await openModel(flags, context));
      const terminal = createInterface({
        input: process.stdin,
        output: context.out,
        prompt: pc.bold("> "),
      });
      const opening: Message[] =
        flags.system === undefined ? [] : [{ role: "system", content: flags.system }];
      let messages = opening;
      terminal.prompt();
      try {
        for await (const line of terminal) {
          if (line.trim() === "") break;
          messages =
            line.trim() === "/new" ? opening : [...messages, { role: "user", content: line }];
          if (messages !== opening) {
            let content = "";
            for await (const { text } of session.generate(messages, generateOptions(flags))) {
              content += text;
              context.out.write(text);
            }
            messages = [...messages, { role: "assistant", content: content.trim() }];
            context.out.write("\n");
          }
          terminal.prompt();
        }
      } finally {
        terminal.close();
        await session.dispose();
      }
    });
}
