import { type Command, CommanderError } from "commander";
import { settingElsewhere } from "../host/train-config-read.ts";

/**
 * `error`, with a hint where more is known of an unknown option of `command` than its spelling: a switch that was given
 * a value (`--packing=true`), or a setting of `train` under another tool's name (`--lr`).
 */
export function withOptionHint(error: unknown, command: Command | undefined): unknown {
  if (!(error instanceof CommanderError) || error.code !== "commander.unknownOption") return error;
  const [, given = "", value] = /'--([^'=]+)(=[^]*)?'/.exec(error.message) ?? [];
  const hint = command && (switchHint(command, given, value) ?? settingHint(command, given));
  if (hint === undefined) return error;
  const [message = ""] = error.message.split("\n", 1);
  return new CommanderError(error.exitCode, error.code, `${message}\n(${hint})`);
}

function switchHint(command: Command, name: string, value?: string): string | undefined {
  const flags = command.options.map(({ long }) => long);
  if (value === undefined || !flags.includes(`--${name}`)) return undefined;
  const off = `--no-${name}`;
  const orOff = flags.includes(off) ? `, or ${off}` : "";
  return `--${name} is a switch without a value: write --${name}${orOff}`;
}

function settingHint(command: Command, name: string): string | undefined {
  if (command.name() !== "train") return undefined;
  const key = settingElsewhere(name.replaceAll("-", "_"));
  return key && `Did you mean --${key.replaceAll("_", "-")}?`;
}
