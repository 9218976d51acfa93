/** @file Small checks once more under compute-sanitizer, which watches every memory access. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Check, root, Skipped } from "./check.ts";

/** Checks that are small enough, and together run every kernel of a training step. */
const SMALL = ["flash attention", "skinny", "quantize", "decode bf16 two rows"];

/**
 * What each tool is told, and the step that it watches. Racecheck finds hazards within NVIDIA's nvjet products, which are left
 * out, and ends with an internal error in a step with cuDNN's attention, so its step has our own.
 */
const TOOLS = {
  memcheck: { flags: [], step: "golden lora bf16" },
  racecheck: {
    flags: ["--kernel-name-exclude", "kernel_substring=nvjet"],
    step: "golden lora bf16 deterministic",
  },
} as const;

/** Arguments of Node.js that run the checks whose names begin with a text. */
function command(part: string): string[] {
  const bundle = process.env["LORIKEET_CUDA_CHECKS"];
  if (bundle !== undefined) return [bundle, part];
  return ["--import", join(root, "scripts/typescript.js"), join(root, "test/cuda/run.ts"), part];
}

function sanitizer(): string {
  const folders = [
    ...(process.env["PATH"] ?? "").split(":"),
    join(process.env["CUDA_HOME"] ?? "/usr/local/cuda", "bin"),
  ];
  const found = folders.map((folder) => join(folder, "compute-sanitizer")).find(existsSync);
  if (found === undefined) throw new Skipped("no compute-sanitizer in PATH or CUDA_HOME");
  return found;
}

/** What a program prints, and how it ended; the test runner goes on meanwhile. */
function outcome(file: string, args: string[]): Promise<{ status: unknown; text: string }> {
  return new Promise((resolve) => {
    execFile(file, args, { maxBuffer: 2 ** 26 }, (error, out, err) => {
      resolve({ status: error?.code ?? error?.signal ?? 0, text: `${out}\n${err}` });
    });
  });
}

async function checkSanitized(tool: keyof typeof TOOLS, part: string): Promise<string> {
  const flags = [`--tool=${tool}`, ...TOOLS[tool].flags, "--error-exitcode=9", "--print-limit=5"];
  const args = [...flags, process.execPath, ...command(part)];
  const { status, text } = await outcome(sanitizer(), args);
  const lines = text.split("\n");
  const summary = lines.filter((line) => /(ERROR|RACECHECK) SUMMARY/.test(line)).at(-1);
  const counts = lines.filter((line) => /^\d+ passed/.test(line)).at(-1) ?? "";
  const isClean = summary !== undefined && /: 0 (errors|hazards)/.test(summary);
  if (status !== 0 || !isClean || !/^[1-9]\d* passed, 0 failed/.test(counts))
    throw new Error(`status ${String(status)}: ${lines.slice(-25).join("\n")}`);
  return `${counts}; ${summary.replace(/^=+ /, "")}`;
}

export const checks: readonly Check[] = (["memcheck", "racecheck"] as const).flatMap((tool) =>
  [TOOLS[tool].step, ...SMALL].map((part) => ({
    name: `${tool} of ${part}`,
    run: () => checkSanitized(tool, part),
  })),
);
