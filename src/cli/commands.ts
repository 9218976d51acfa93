import type { Command } from "commander";
import type { CliContext } from "./context.ts";

/** What a command's file exports: options, examples and action. */
export interface CommandModule {
  readonly register: (command: Command, context: CliContext) => void;
}

/** A command as the overview lists it; its file is read only when it is called. */
export interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<CommandModule>;
}

/** All commands, in the order of `lorikeet --help`. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: "doctor",
    summary: "check this machine: what was found, and what to do about what is missing",
    load: () => import("./doctor.ts"),
  },
];
