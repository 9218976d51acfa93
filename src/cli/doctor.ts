import type { Command } from "commander";
import pc from "picocolors";
import type { WeightSource } from "../backends/backend.ts";
import { LorikeetError } from "../errors.ts";
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
    .option("--webgpu", "look for a WebGPU adapter too, and test it")
    .option("--json", "print the findings as JSON")
    .addHelpText("after", "\nExamples:\n  lorikeet doctor\n  lorikeet doctor --json")
    .action(async ({ json, webgpu }: { json?: boolean; webgpu?: boolean }) => {
      const probes = webgpu ? [probeCuda, probeWebgpu] : [probeCuda];
      const findings = await diagnose([...HOST_PROBES, ...probes]);
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

/** What `--device webgpu` would find. Only on request, as Dawn warns by itself where there is no Vulkan. */
async function probeWebgpu(): Promise<Finding> {
  const name = "WebGPU";
  const { openEngine } = await import("../api/open-engine.ts");
  try {
    const engine = await openEngine(NO_WEIGHTS, { device: "webgpu" });
    await engine.dispose();
    return { name, status: "ok", detail: "an adapter that passed the self-test" };
  } catch (error) {
    if (!(error instanceof LorikeetError)) throw error;
    const { code, message, hint } = error;
    const detail = code === "no-webgpu" ? "no adapter (--json: why)" : message;
    const finding: Finding = { name, status: "limited", detail, notes: [message] };
    return hint === undefined ? finding : { ...finding, remedy: hint };
  }
}

const NO_WEIGHTS: WeightSource = {
  names: [],
  get: unreadable,
  read: unreadable,
};

function unreadable(name: string): never {
  throw new LorikeetError("missing-weight", `Expected no weight to be read, got ${name}`);
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
