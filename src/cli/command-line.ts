import { Command } from "commander";
import { packageVersion } from "../host/package-version.ts";
import { COMMANDS } from "./commands.ts";
import { type CliContext, EXIT_CODES } from "./context.ts";
import { reportFailure } from "./failure.ts";

/** Runs the command line `argv` (without node and script) and returns its exit status. Nothing is thrown. */
export async function runCommandLine(
  argv: readonly string[],
  streams: Pick<CliContext, "out" | "err">,
): Promise<number> {
  const context: CliContext = { ...streams, exitCode: EXIT_CODES.ok };
  const args = withoutVainHelp(argv.length === 0 ? ["--help"] : argv.map(withDashes));
  let program: Command | undefined;
  try {
    program = await buildProgram(args, context);
    await program.parseAsync(args, { from: "user" });
    return context.exitCode;
  } catch (error) {
    const called = program ? calledCommands(program, args) : [];
    const style = {
      debug: args.includes("--debug"),
      json: args.includes("--json"),
      command: called.map((command) => command.name()).join(" ") || undefined,
    };
    const { withOptionHint } = await import("./unknown-option.ts"); // knows all settings: nothing to read without need
    return reportFailure(withOptionHint(error, called.at(-1)), context, style);
  }
}

/** `--learning_rate=1` as `--learning-rate=1`: names may be written as in a configuration file. */
function withDashes(argument: string): string {
  return argument.replace(/^--\w[\w-]*/, (name) => name.replaceAll("_", "-"));
}

/** The command that `args` call, or what stands in its place. */
function calledIn(args: readonly string[]): string | undefined {
  return args.find((argument) => !argument.startsWith("-") && argument !== "help");
}

/** `args` without the wish for help on a command that there is not, which commander answers as if none was named. */
function withoutVainHelp(args: readonly string[]): readonly string[] {
  const called = calledIn(args);
  if (called === undefined || COMMANDS.some(({ name }) => name === called)) return args;
  return args.filter((argument) => !["help", "--help", "-h"].includes(argument));
}

/** The command that `args` call, and the one within it: data, preview. */
function calledCommands(program: Command, args: readonly string[]): Command[] {
  const called: Command[] = [];
  for (const argument of args) {
    const { commands } = called.at(-1) ?? program;
    const next = commands.find((command) => command.name() === argument);
    if (next) called.push(next);
  }
  return called;
}

async function buildProgram(args: readonly string[], context: CliContext): Promise<Command> {
  const program = new Command("lorikeet")
    .description("LoRA for TypeScript: fine-tune language and image models, and use the result.")
    .usage("<command> [options]")
    .version(packageVersion(), "-v, --version", "print the version")
    .option("--debug", "show where an error comes from")
    .helpCommand("help [command]", "show the options and examples of a command")
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => void context.out.write(text),
      writeErr: (text) => void context.err.write(text),
      outputError: () => undefined, // reportFailure shows it
    })
    .exitOverride();
  const called = calledIn(args);
  for (const { name, summary, load } of COMMANDS) {
    const command = program.command(name).description(summary);
    if (name === called) (await load()).register(command, context);
  }
  return program;
}
