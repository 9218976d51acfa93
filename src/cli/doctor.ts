import type { Command } from "commander";
import pc from "picocolors";
import { diagnose, type Finding, HOST_PROBES } from "../host/doctor.ts";
import { type CliContext, EXIT_CODES } from "./context.ts";

const MARKS: Readonly<Record<Finding["status"], string>> = {
  ok: pc.green("✓"),
  limited: pc.yellow("!"),
  missing: pc.red("✗"),
};

/** `lorikeet doctor`: what this machine has. Fails when something is missing that Lorikeet cannot do without. */
export function register(command: Command, context: CliContext): void {
  command
    .option("--json", "print the findings as JSON")
    .addHelpText("after", "\nExamples:\n  lorikeet doctor\n  lorikeet doctor --json")
    .action(async ({ json }: { json?: boolean }) => {
      const findings = await diagnose(HOST_PROBES);
      context.out.write(json ? `${JSON.stringify({ findings }, null, 2)}\n` : shown(findings));
      if (findings.some(({ status }) => status === "missing")) context.exitCode = EXIT_CODES.failed;
    });
}

function shown(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  return findings
    .map(({ name, status, detail, remedy }) => {
      const line = `${MARKS[status]} ${name.padEnd(width)}  ${detail}\n`;
      return remedy === undefined ? line : `${line}  ${" ".repeat(width)}  → ${remedy}\n`;
    })
    .join("");
}
