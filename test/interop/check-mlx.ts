/**
 * @file Compares Lorikeet with mlx-lm, both ways: adapters that Lorikeet converts must give Lorikeet's logits there, and
 * adapters that mlx-lm trains must give mlx-lm's logits here. Run by hand; prints a Markdown table, ends with 1 if
 * something differs by more than 1e-4.
 *
 *   python3 -m venv /tmp/mlx && /tmp/mlx/bin/pip install 'mlx[cpu]' mlx-lm
 *   node --import ./scripts/typescript.js test/interop/check-mlx.ts /tmp/mlx/bin/python [FIXTURE]
 *
 * FIXTURE: folder for the smallest adapter that mlx-lm trained, with the logits after each row (test/fixtures/mlx).
 */
import { execFileSync } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadModel } from "../../src/api/load-model.ts";
import { serializeSafetensors } from "../../src/formats/safetensors-write.ts";
import { loadAnyAdapter } from "../../src/host/adapter-formats.ts";
import { tensor, type Tensor } from "../../src/tensor/tensor.ts";
import { lorikeet } from "../support/command.ts";
import { tensorsOf } from "./peft-cases.ts";

const GOLDEN = join(import.meta.dirname, "../golden");
const BASE = join(import.meta.dirname, "../../models/storyteller-6m");
const CONVERTED = ["lora", "rslora", "dora", "patterns", "layers"];
const TRAINED = ["trained-lora", "trained-dora", "trained-two-layers", "trained-small"];

const [python, fixture] = process.argv.slice(2);
if (python === undefined) throw new Error("Name the Python that mlx-lm is installed in.");
const scratch = await mkdtemp(join(tmpdir(), "lorikeet-mlx-"));
try {
  const base = await loadModel(BASE);
  const ids = (await tensorsOf(join(GOLDEN, "base.safetensors"))).get("input_ids")!;
  const length = ids.shape[1]!;
  const flat = Array.from(ids.data, Number);
  const rows = Array.from({ length: ids.shape[0]! }, (_, b) => flat.slice(b * length, (b + 1) * length)); // prettier-ignore
  const logitsWith = async (reference: string): Promise<Tensor> => {
    const model = base.withAdapter(await loadAnyAdapter(reference, base.checkpoint.config));
    try {
      return await model.logits(rows);
    } finally {
      await model.dispose();
    }
  };
  const plain = await base.logits(rows);
  await writeFile(join(scratch, "rows.safetensors"), serializeSafetensors(new Map([["input_ids", ids]]))); // prettier-ignore
  for (const name of CONVERTED) {
    const adapter = join(GOLDEN, name, "adapter_after10");
    const { code, err } = await lorikeet("convert", adapter, "--to", "mlx", "-o", join(scratch, name), "-m", BASE); // prettier-ignore
    if (code !== 0) throw new Error(err);
  }
  await writeData(join(scratch, "data"));
  execFileSync(python, [join(import.meta.dirname, "check_mlx.py"), BASE, scratch, CONVERTED.join(), TRAINED.join()], { stdio: ["ignore", 2, 2] }); // prettier-ignore
  process.stdout.write(`| adapter | largest difference of logits | the adapter moves them by |\n| --- | --- | --- |\n`); // prettier-ignore
  for (const name of [...CONVERTED, ...TRAINED]) {
    // Converted adapters: PEFT's own folder here, mlx-lm's there.
    const reference = CONVERTED.includes(name) ? join(GOLDEN, name, "adapter_after10") : join(scratch, name); // prettier-ignore
    const theirs = (await tensorsOf(join(scratch, `${name}.safetensors`))).get("logits")!;
    const ours = await logitsWith(reference);
    const difference = largestDifference(ours, theirs);
    if (!(difference <= 1e-4)) process.exitCode = 1;
    process.stdout.write(`| ${name} | ${difference.toExponential(1)} | ${largestDifference(ours, plain).toFixed(2)} |\n`); // prettier-ignore
  }
  if (fixture !== undefined) await keep(join(scratch, "trained-small"), fixture, ids);
} finally {
  await rm(scratch, { recursive: true });
}

/** Writes the adapter of mlx-lm in `source`, and its logits at the end of the rows `ids`, into `folder`. */
async function keep(source: string, folder: string, ids: Tensor): Promise<void> {
  await mkdir(folder, { recursive: true });
  const config = JSON.parse(await readFile(join(source, "adapter_config.json"), "utf8")) as object;
  const paths = { model: "storyteller-6m", data: "data", adapter_path: "mlx", config: null };
  await writeFile(join(folder, "adapter_config.json"), `${JSON.stringify({ ...config, ...paths }, undefined, 2)}\n`); // prettier-ignore
  await copyFile(join(source, "adapters.safetensors"), join(folder, "adapters.safetensors"));
  const { shape, data } = (await tensorsOf(`${source}.safetensors`)).get("logits")!;
  const [rows, length, size] = shape as [number, number, number];
  const last = new Float32Array(rows * size);
  for (let row = 0; row < rows; row++)
    last.set((data as Float32Array).subarray(((row + 1) * length - 1) * size, (row + 1) * length * size), row * size); // prettier-ignore
  const expected = new Map([["input_ids", ids], ["logits_last", tensor("f32", [rows, size], last)]] as const); // prettier-ignore
  await writeFile(join(folder, "expected.safetensors"), serializeSafetensors(expected));
}

/** The rows that mlx-lm trains on. */
async function writeData(folder: string): Promise<void> {
  await mkdir(folder);
  const stories = (await readFile(join(BASE, "README.md"), "utf8")).split("\n\n");
  const lines = stories.filter((text) => text.length > 40).map((text) => JSON.stringify({ text }));
  for (const name of ["train", "valid"])
    await writeFile(join(folder, `${name}.jsonl`), `${lines.join("\n")}\n`);
}

function largestDifference(got: Tensor, want: Tensor): number {
  if (got.data.length !== want.data.length) return Infinity;
  return Array.from(want.data, Number).reduce((most, value, i) => Math.max(most, Math.abs(Number(got.data[i]) - value)), 0); // prettier-ignore
}
