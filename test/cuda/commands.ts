/** @file `lorikeet train` as a process on the GPU: chosen by itself, interrupted, continued, and stopped by faults. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Check, root } from "./check.ts";

const COMMAND = process.env["LORIKEET_COMMAND"]?.split(" ") ?? [
  ...["--import", join(root, "scripts/typescript.js"), join(root, "src/cli/main.ts")],
];

interface Outcome {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs the command; `onLine` sees each line of its output. */
function lorikeet(
  args: readonly string[],
  onLine?: (line: string, child: ChildProcess) => void,
): Promise<Outcome> {
  const child = spawn(process.execPath, [...COMMAND, ...args]);
  const text = { out: "", err: "" };
  child.stdout.on("data", (data: Buffer) => {
    text.out += data.toString();
    for (const line of data.toString().split("\n")) onLine?.(line, child);
  });
  child.stderr.on("data", (data: Buffer) => (text.err += data.toString()));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status) => {
      resolve({ status, ...text });
    });
  });
}

function expectThat(what: string, isSo: boolean, { status, out, err }: Outcome): void {
  if (isSo) return;
  throw new Error(
    `expected ${what}; status ${String(status)}, output ${out.slice(-400)}, errors ${err.slice(-600)}`,
  );
}

/** Arguments of a run on made-up rows, in a folder of its own. */
function settings(folder: string, steps: number, ...more: string[]): string[] {
  const data = join(folder, "data.jsonl");
  const row = (i: number): string =>
    JSON.stringify({ prompt: `Tell of bird ${i}.`, completion: ` Bird ${i} sings on a tree.` });
  writeFileSync(data, Array.from({ length: 16 }, (_, i) => row(i)).join("\n"));
  return [
    ...["train", "--model", join(root, "models/storyteller-6m"), "--data", data, "--json"],
    ...["--output-dir", join(folder, "out"), "--max-steps", String(steps), "--no-report", ...more],
  ];
}

async function inFolder(run: (folder: string) => Promise<string>): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "lorikeet-cuda-"));
  try {
    return await run(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Ctrl-C in the middle of a run: exit status 130, a checkpoint that the run continues from. */
async function checkInterrupt(folder: string): Promise<string> {
  let steps = 0;
  const stopped = await lorikeet(settings(folder, 100_000), (line, child) => {
    if (line.includes('"type":"step"') && ++steps === 5) child.kill("SIGINT");
  });
  expectThat("exit status 130", stopped.status === 130, stopped);
  expectThat("--device auto to name the GPU", /"device: cuda:0, /.test(stopped.out), stopped);
  const step = Number(/"reason":"interrupted","step":(\d+)/.exec(stopped.out)?.[1]);
  const path = join(folder, `out/checkpoint-${step}/adapter_model.safetensors`);
  expectThat("a checkpoint", step >= 5 && existsSync(path), stopped);
  const more = await lorikeet(settings(folder, step + 2, "--resume"));
  expectThat("two more steps", more.out.includes(`"type":"step","step":${step + 2},`), more);
  expectThat("exit status 0", more.status === 0, more);
  return `stopped after step ${step}, exit status 130, continued`;
}

/** A loss that is no number: the step is named, the last good state is kept. */
async function checkDivergence(folder: string): Promise<string> {
  const args = [
    "--learning-rate",
    "1e35",
    "--max-grad-norm",
    "0",
    "--lr-scheduler-type",
    "constant",
  ];
  const failed = await lorikeet(settings(folder, 40, ...args));
  expectThat("exit status 1", failed.status === 1, failed);
  expectThat("non-finite-loss", failed.err.includes('"code":"non-finite-loss"'), failed);
  const kept = /checkpoint-\d+/.exec(failed.err)?.[0];
  expectThat("a checkpoint", kept !== undefined && existsSync(join(folder, "out", kept)), failed);
  return /"message":"([^"]*)"/.exec(failed.err)?.[1] ?? "";
}

async function checkMissingGpu(folder: string): Promise<string> {
  const failed = await lorikeet(settings(folder, 1, "--device", "cuda:99"));
  expectThat("cuda-device", failed.status === 1 && failed.err.includes('"cuda-device"'), failed);
  return /"message":"([^"]*)"/.exec(failed.err)?.[1] ?? "";
}

export const checks: readonly Check[] = [
  { name: "command: Ctrl-C and --resume", run: () => inFolder(checkInterrupt) },
  { name: "command: a loss that is no number", run: () => inFolder(checkDivergence) },
  { name: "command: a GPU that is not there", run: () => inFolder(checkMissingGpu) },
];
