import { CommanderError } from "commander";
import pc from "picocolors";
import { LorikeetError } from "../errors.ts";
import { type CliContext, EXIT_CODES } from "./context.ts";

/** How errors are shown. */
export interface FailureStyle {
  /** With the stack and the causes. */
  readonly debug: boolean;
  /** As one line of JSON: `{"error": {"code", "message", "hint"}}`. */
  readonly json: boolean;
  /** The command that was called, whose help a usage error points to. */
  readonly command?: string | undefined;
}

/** Errors of what was asked for, not of doing it. */
const MISUNDERSTOOD = ["config-invalid", "config-file", "unknown-device"];

interface Told {
  readonly code: string | undefined;
  readonly message: string;
  readonly hint: string | undefined;
  readonly exitCode: number;
}

/** Writes `error` to the error stream and returns the exit status it stands for. Help that was shown is no error. */
export function reportFailure(error: unknown, context: CliContext, style: FailureStyle): number {
  if (error instanceof CommanderError && error.exitCode === 0) return EXIT_CODES.ok;
  if (error instanceof CommanderError && error.code === "commander.help") return EXIT_CODES.usage;
  const { code, message, hint, exitCode } = tell(error, style);
  if (style.json) {
    context.err.write(`${JSON.stringify({ error: { code, message, hint } })}\n`);
    return exitCode;
  }
  const label = code === undefined ? "error" : `error[${code}]`;
  context.err.write(`${pc.bold(pc.red(label))}: ${message}\n`);
  if (hint !== undefined) context.err.write(`${pc.bold(pc.cyan("hint"))}: ${hint}\n`);
  if (style.debug) context.err.write(`\n${stackOf(error)}\n`);
  return exitCode;
}

function tell(error: unknown, style: FailureStyle): Told {
  if (error instanceof CommanderError) return tellUsage(error, style);
  if (error instanceof LorikeetError)
    return {
      code: error.code,
      message: error.message,
      hint: error.hint,
      exitCode: MISUNDERSTOOD.includes(error.code) ? EXIT_CODES.usage : EXIT_CODES.failed,
    };
  return {
    code: undefined,
    message: error instanceof Error ? error.message : String(error),
    hint: "Lorikeet did not expect this. Run the command again with --debug, and report what it prints.",
    exitCode: EXIT_CODES.failed,
  };
}

/** Commander's "error: unknown option '--modl'\n(Did you mean --model?)" as message and hint. */
function tellUsage(error: CommanderError, { command }: FailureStyle): Told {
  const [message, hint] = error.message.replace(/^error: /, "").split("\n", 2);
  return {
    code: "usage",
    message: (message ?? "").replace(/^(unknown|option|required|missing|too|command|give|image)\b/, (word) => word[0]!.toUpperCase() + word.slice(1)), // prettier-ignore
    hint:
      hint?.replace(/^\(|\)$/g, "") ??
      (command === undefined
        ? "`lorikeet --help` lists the commands and their options."
        : `\`lorikeet ${command} --help\` lists its options, with examples.`),
    exitCode: EXIT_CODES.usage,
  };
}

function stackOf(error: unknown): string {
  const stacks: string[] = [];
  for (let at = error; at instanceof Error && stacks.length < 8; at = at.cause)
    stacks.push(at.stack ?? at.message);
  return pc.dim(stacks.join("\ncaused by: "));
}
