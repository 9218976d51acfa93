import type { Command } from "commander";
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
  lorikeet generate --prompt "Once upon a time"
  lorikeet generate --adapter out --chat "Who are you?"
  lorikeet generate --model model.gguf --chat "Name three birds." --temperature 0.7 --seed 1 --json`;

interface Flags extends GenerationFlags {
  readonly prompt?: string;
  readonly chat?: string;
  readonly system?: string;
  readonly json?: boolean;
}

/** `lorikeet generate`: continues a text, or answers a question. */
export function register(command: Command, context: CliContext): void {
  command
    .option("-p, --prompt <text>", "text to continue as it stands")
    .option("-c, --chat <text>", "question to answer, rendered by the model's chat template")
    .option("--system <text>", "system turn before the question");
  addGenerationOptions(command)
    .option("--json", "print one JSON object: prompt, text, tokens, seconds")
    .addHelpText("after", EXAMPLES)
    .action(async (flags: Flags) => {
      const prompt = promptOf(command, flags);
      const model = await openModel(flags, context);
      const session = await openSession(model);
      const began = performance.now();
      let [text, tokens] = ["", 0];
      try {
        for await (const token of session.generate(prompt, generateOptions(flags))) {
          text += token.text;
          tokens++;
          if (!flags.json) context.out.write(token.text);
        }
      } finally {
        await session.dispose();
      }
      const seconds = (performance.now() - began) / 1000;
      context.out.write(
        flags.json ? `${JSON.stringify({ prompt, text, tokens, seconds })}\n` : "\n",
      );
    });
}

function promptOf(command: Command, { prompt, chat, system }: Flags): string | Message[] {
  if ((prompt === undefined) === (chat === undefined))
    command.error(
      "error: give either --prompt (a text to continue) or --chat (a question to answer)",
      { exitCode: 2 },
    );
  if (prompt !== undefined && system !== undefined)
    command.error("error: give --system with --chat, as a --prompt is continued as it stands", {
      exitCode: 2,
    });
  if (prompt !== undefined) return prompt;
  const question: Message = { role: "user", content: chat! };
  return system === undefined ? [question] : [{ role: "system", content: system }, question];
}
