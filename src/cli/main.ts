#!/usr/bin/env node
/** @file The `lorikeet` command: each subcommand is a file of this folder, listed in commands.ts. */
import { runCommandLine } from "./command-line.ts";

// a reader that stops early (`lorikeet inspect … | head`) is no error
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

process.exitCode = await runCommandLine(process.argv.slice(2), {
  out: process.stdout,
  err: process.stderr,
});
