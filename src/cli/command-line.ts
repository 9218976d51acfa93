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
  const args = argv.length === 0 ? ["--help"] : argv.map(withDashes);
  let program: Command | undefined;
  try {
    program = await buildProgram(args, context);
    await program.parseAsync(args, { from: "user" });
    return context.exitCode;
  } catch (error) {
    const style = {
      debug: args.includes("--debug"),
      json: args.includes("--json"),
      command: program && commandPath(program, args),
    };
    return reportFailure(error, context, style);
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

/** The names of the command that `args` call, and of the one within it: "data preview". */
function commandPath(program: Command, args: readonly string[]): string | undefined {
  const names: string[] = [];
  let at = program;
  for (const argument of args) {
    const next = at.commands.find((command) => command.name() === argument);
    if (next) names.push((at = next).name());
  }
  return names.length === 0 ? undefined : names.join(" ");
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
