/** What a command writes to, and how it ends. */
export interface CliContext {
  /** Results: what a script reads. */
  readonly out: NodeJS.WritableStream;
  /** Progress, warnings and errors: what a person reads. */
  readonly err: NodeJS.WritableStream;
  /** Exit status when the command ends without an error: EXIT_CODES says which there are. */
  exitCode: number;
}

/** Exit statuses; documented in docs/cli.md. */
export const EXIT_CODES: Readonly<
  Record<
    /** The command did what it was asked for. */
    | "ok"
    /** It could not. */
    | "failed"
    /** The command line or the configuration was not understood. */
    | "usage"
    /** Ctrl-C; what was done so far is saved. */
    | "interrupted",
    number
  >
> = { ok: 0, failed: 1, usage: 2, interrupted: 130 };
