/**
 * @file Reads every adapter of a grid that PEFT made, computes its logits, merges it, and saves it again for PEFT.
 * Prints one line a case; check_ours.py makes the table.
 *
 *   node --import ./scripts/typescript.js test/interop/check-peft.ts GRID OURS [CASE…]
 */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Adapter } from "../../src/adapter/adapter.ts";
import { LorikeetError } from "../../src/errors.ts";
import { serializeSafetensors } from "../../src/formats/safetensors-write.ts";
import { loadAdapterFolder, saveAdapter } from "../../src/host/adapter-files.ts";
import { isFile } from "../../src/host/files.ts";
import { mergedCheckpoint } from "../../src/host/merged-checkpoint.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { type CaseFacts, type InteropBase, interopBase, tensorsOf } from "./peft-cases.ts";

/** Largest absolute difference of logits that passes. */
const TOLERANCE = 1e-4;

const [grid, ours, ...chosen] = process.argv.slice(2);
if (grid === undefined || ours === undefined) {
  process.stderr.write("check-peft.ts GRID OURS [CASE…]\n");
  process.exit(2);
}
const names =
  chosen.length > 0
    ? chosen
    : (JSON.parse(await readFile(join(grid, "grid.json"), "utf8")) as string[]);
const failed: Record<string, string> = {};
for (const name of names) {
  try {
    process.stdout.write(`${name.padEnd(28)} ${await checkCase(grid, ours, name)}\n`);
  } catch (error) {
    const { code, message } = error as Partial<LorikeetError> & Error;
    failed[name] = `${code ?? "failed"}: ${message}`;
    process.stdout.write(`${name.padEnd(28)} ${failed[name]}\n`);
    if (!(error instanceof LorikeetError)) process.stderr.write(`${String((error as Error).stack)}\n`); // prettier-ignore
  }
}
await writeFile(join(ours, "failed.json"), `${JSON.stringify(failed, undefined, 2)}\n`);
process.stdout.write(`${names.length} cases, ${Object.keys(failed).length} without a result\n`);
process.exitCode = Object.keys(failed).length > 0 ? 1 : 0;

async function checkCase(from: string, to: string, name: string): Promise<string> {
  const folder = join(from, name);
  const out = join(to, name);
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  const facts = JSON.parse(await readFile(join(folder, "case.json"), "utf8")) as CaseFacts;
  const expected = await tensorsOf(join(folder, "expected.safetensors"));
  const base = await interopBase(facts.base, from, expected);
  const adapter = await loadAdapterFolder(join(folder, facts.adapter_folder));
  await saveAdapter(adapter, join(out, facts.adapter_folder));

  const results = new Map<string, Tensor>();
  const differences: string[] = [];
  const note = (key: string, value: Tensor): void => {
    results.set(key, value);
    differences.push(`${key.replace("_logits", "")} ${describe(value, expected.get(key))}`);
  };
  note("adapter_logits", await base.logits(base.checkpoint, adapter));
  differences.push(await tryMerge(base, adapter, { out, note }));
  const converted = join(folder, "converted", facts.adapter_name === "default" ? "" : facts.adapter_name); // prettier-ignore
  if (await isFile(join(converted, "adapter_config.json")))
    note("converted_logits", await base.logits(base.checkpoint, await loadAdapterFolder(converted))); // prettier-ignore
  await writeFile(join(out, "ours.safetensors"), serializeSafetensors(results));
  return differences.filter(Boolean).join("  ");
}

/** Merges, where the base has a place for the adapter; returns why not otherwise. */
async function tryMerge(
  base: InteropBase,
  adapter: Adapter,
  { out, note }: { out: string; note: (key: string, value: Tensor) => void },
): Promise<string> {
  const { checkpoint, layers, family } = base;
  try {
    const merged = await mergedCheckpoint(checkpoint, adapter, { layers, head: family.head }, { dtype: "f32" }); // prettier-ignore
    const weights = new Map<string, Tensor>();
    for (const name of merged.weights.names) weights.set(name, await merged.weights.read(name));
    await writeFile(join(out, "merged.safetensors"), serializeSafetensors(weights));
    note("merged_logits", await base.logits(merged));
    return "";
  } catch (error) {
    if (error instanceof LorikeetError && error.code === "cannot-merge") return `not merged: ${error.message}`; // prettier-ignore
    throw error;
  }
}

function describe(got: Tensor, want: Tensor | undefined): string {
  if (!want) return "(PEFT gives none)";
  if (got.data.length !== want.data.length) return `shape [${got.shape.join()}] for [${want.shape.join()}]`; // prettier-ignore
  let largest = 0;
  for (let i = 0; i < want.data.length; i++)
    largest = Math.max(largest, Math.abs(Number(got.data[i]) - Number(want.data[i])));
  return `${largest.toExponential(1)}${largest <= TOLERANCE ? "" : " DIFFERS"}`;
}
