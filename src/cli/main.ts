#!/usr/bin/env node
/** @file The `lorikeet` command: each subcommand is a file of this folder, listed in commands.ts. */
import { asFileError } from "../host/file-errors.ts";
import { runCommandLine } from "./command-line.ts";
import { reportFailure } from "./failure.ts";

const streams = { out: process.stdout, err: process.stderr };

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  // a reader that stops early (`lorikeet inspect … | head`) is no error
  if (error.code === "EPIPE") process.exit(0);
  const failure = asFileError(error, "standard output", "written");
  process.exit(reportFailure(failure, { ...streams, exitCode: 0 }, { debug: false, json: false }));
});

process.exitCode = await runCommandLine(process.argv.slice(2), streams);
