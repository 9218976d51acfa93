import { spawn, spawnSync } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import typescript from "typescript";
import type { Memory } from "../src/backends/onnx/engine.ts";
import type { BaseDType } from "../src/backends/onnx/storage.ts";

/** One LoRA training step to be repeated. */
export interface StepJob {
  /** Model folder. */
  readonly model: string;
  readonly batch: number;
  readonly length: number;
  readonly rank: number;
  readonly checkpointing: boolean;
  /** Share of the adapters' inputs that is dropped. */
  readonly dropout: number;
  readonly baseDtype: BaseDType;
  readonly memory: Memory;
  /** 0: one for each physical core. */
  readonly threads: number;
  readonly steps: number;
}

/** What it gave. */
export interface StepResult {
  readonly losses: readonly number[];
  /** Forward, backward and update, without the first step. */
  readonly stepSeconds: readonly number[];
  /** From the start of the process to the end of the first step. */
  readonly firstStepSeconds: number;
  readonly compileSeconds: number;
  readonly peakBytes: number;
}

/** The same of the peer, from the line that peer/peft_train.py prints. */
export interface PeerResult {
  readonly ms: number;
  readonly min_ms: number;
  readonly peak_gib: number;
  readonly torch: string;
}

/**
 * FLOPs of a step as peer/peft_train.py counts them: forward and the gradient of activations for linear layers and
 * head; causal attention forward and 2.5 times that backward. Adapters and recomputation are not credited.
 */
export function stepFlops(
  config: Readonly<Record<string, unknown>>,
  { batch, length }: { batch: number; length: number },
): number {
  const value = (key: string): number => Number(config[key]);
  const [C, layers] = [value("hidden_size"), value("num_hidden_layers")];
  const [heads, keyHeads] = [value("num_attention_heads"), value("num_key_value_heads")];
  const headDim = Number(config["head_dim"] ?? C / heads);
  const attention = C * headDim * (2 * heads + 2 * keyHeads);
  const linear = layers * (attention + 3 * C * value("intermediate_size") + 2 * C) + C;
  const head = value("vocab_size") * C;
  const scores = layers * batch * length ** 2 * heads * headDim;
  return 4 * batch * length * (linear + head) + 7 * scores;
}

/**
 * Builds the package, and makes JavaScript over it of `file` (of this folder, with type imports alone from beside it):
 * users run it so, and sources take longer to load.
 */
export async function built(file: string): Promise<string> {
  const here = (path: string): URL => new URL(path, import.meta.url);
  const { status } = spawnSync(process.execPath, [fileURLToPath(here("../scripts/build.js"))], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (status !== 0) throw new Error("The package does not build (see above)");
  const compilerOptions = {
    target: typescript.ScriptTarget.ES2023,
    module: typescript.ModuleKind.ESNext,
  };
  const text = await readFile(here(file), "utf8");
  const { outputText } = typescript.transpileModule(text, { compilerOptions });
  const folder = here("../out/bench/");
  await mkdir(folder, { recursive: true });
  const target = fileURLToPath(new URL(file.replace(".ts", ".js"), folder));
  await writeFile(target, outputText.replace(/"\.\.\/src\/(.*)\.ts"/g, '"../../dist/$1.js"'));
  return target;
}

/** Runs a command and reads the last line that it prints as JSON. */
export async function runJson<T>(command: string, args: readonly string[]): Promise<T> {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (piece: string) => (text += piece));
  const code = await new Promise((resolve) => child.on("close", resolve));
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${String(code)}`);
  return JSON.parse(text.trim().split("\n").at(-1)!) as T;
}

/** The middle value. */
export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
