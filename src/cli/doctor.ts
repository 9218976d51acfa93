import type { Command } from "commander";
import pc from "picocolors";
import { diagnose, type Finding, HOST_PROBES } from "../host/doctor.ts";
import { formatBytes } from "../host/run-files/run-numbers.ts";
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
      const findings = await diagnose([...HOST_PROBES, probeCuda]);
      context.out.write(json ? `${JSON.stringify({ findings }, null, 2)}\n` : shown(findings));
      if (findings.some(({ status }) => status === "missing")) context.exitCode = EXIT_CODES.failed;
    });
}

/** What the CUDA engine would find. Without it everything runs on the CPU, so nothing here is missing. */
async function probeCuda(): Promise<Finding> {
  const { describeCuda } = await import("../backends/cuda/describe.ts");
  const { usable, libraries, devices, attention } = describeCuda();
  const found = libraries.map(({ name, version, path, problem }) =>
    problem === undefined ? `${name} ${version ?? ""} (${path ?? ""})` : `${name}: ${problem}`,
  );
  const gpus = devices.map(
    ({ index, name, freeBytes }) => `cuda:${index} ${name}, ${formatBytes(freeBytes)} free`,
  );
  const test = attention ? [`attention self-test: ${JSON.stringify(attention)}`] : [];
  const notes = [...gpus, ...found, ...test];
  if (usable) return { name: "CUDA", status: "ok", detail: notes.join("; ") };
  const remedy = libraries.find(({ hint }) => hint !== undefined)?.hint;
  const hasDriver = libraries.some(({ name, path }) => name === "driver" && path !== undefined);
  const detail = hasDriver
    ? notes.join("; ")
    : "no NVIDIA driver (--json: where it was looked for)";
  const finding: Finding = { name: "CUDA", status: "limited", detail, notes };
  return remedy === undefined ? finding : { ...finding, remedy };
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
