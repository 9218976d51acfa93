/** @file Small checks once more under compute-sanitizer, which watches every memory access. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Check, root, Skipped } from "./check.ts";

/** Checks that are small enough, and together run every kernel of a training step. */
const SMALL = ["flash attention", "skinny", "quantize", "decode bf16 two rows"];

/** The step that each tool watches: racecheck ends with an internal error in one with cuDNN's attention. */
const STEPS = {
  memcheck: "golden lora bf16",
  racecheck: "golden lora bf16 deterministic",
} as const;

/** What racecheck says of a hazard, with the kernel that it is in. */
const HAZARD = /Race reported between \w+ access at (\S+?)\+0x/;

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

/**
 * @throws Skipped where the sanitizer itself fails: what it says then is of no kernel. Hazards within NVIDIA's nvjet products are
 * told and allowed, as they are not ours to mend.
 */
async function checkSanitized(tool: keyof typeof STEPS, part: string): Promise<string> {
  const flags = [`--tool=${tool}`, "--error-exitcode=9", "--print-limit=1000"];
  const args = [...flags, process.execPath, ...command(part)];
  const { status, text } = await outcome(sanitizer(), args);
  if (text.includes("Internal Sanitizer Error"))
    throw new Skipped(`${tool} itself failed: ${/Internal Sanitizer Error.*/.exec(text)![0]}`);
  const lines = text.split("\n");
  const kernels = lines.flatMap((line) => HAZARD.exec(line)?.[1] ?? []);
  const isNvidias = kernels.length > 0 && kernels.every((name) => name.startsWith("nvjet"));
  const summary = lines.filter((line) => /(ERROR|RACECHECK) SUMMARY/.test(line)).at(-1);
  const counts = lines.filter((line) => /^\d+ passed/.test(line)).at(-1) ?? "";
  const isClean = summary !== undefined && /: 0 (errors|hazards)/.test(summary) && status === 0;
  if (!(isClean || isNvidias) || !/^[1-9]\d* passed, 0 failed/.test(counts))
    throw new Error(`status ${String(status)}: ${lines.slice(-25).join("\n")}`);
  const theirs = isNvidias ? ` (all in NVIDIA's ${[...new Set(kernels)].join(", ")})` : "";
  return `${counts}; ${summary!.replace(/^=+ /, "")}${theirs}`;
}

export const checks: readonly Check[] = (["memcheck", "racecheck"] as const).flatMap((tool) =>
  [STEPS[tool], ...SMALL].map((part) => ({
    name: `${tool} of ${part}`,
    run: () => checkSanitized(tool, part),
  })),
);
