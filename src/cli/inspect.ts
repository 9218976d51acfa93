import { join } from "node:path";
import Table from "cli-table3";
import type { Command } from "commander";
import pc from "picocolors";
import {
  type AdapterInspection,
  inspectAdapter,
  inspectModel,
  type ModelInspection,
} from "../api/inspection.ts";
import { loadModel, type LoadOptions } from "../api/load-model.ts";
import { loadAdapterFolder } from "../host/adapter-files.ts";
import { isFile } from "../host/files.ts";
import { formatBytes } from "../host/run-files/run-numbers.ts";
import { formatShape } from "../tensor/shape.ts";
import type { CliContext } from "./context.ts";
import { showDownload } from "./download.ts";

const EXAMPLES = `
Examples:
  lorikeet inspect storyteller-6m
  lorikeet inspect out --model storyteller-6m
  lorikeet inspect model.gguf --weights
  lorikeet inspect out --json`;

interface Flags {
  readonly model?: string;
  readonly weights?: boolean;
  readonly json?: boolean;
}

/** `lorikeet inspect`: what is in a model or an adapter, and whether they fit. */
export function register(command: Command, { out, err }: CliContext): void {
  command
    .argument("<what>", "model (hub id, folder, .gguf file, storyteller-6m) or adapter folder")
    .option("-m, --model <model>", "base to compare an adapter with")
    .option("--weights", "list every tensor with its dtype and shape")
    .option("--json", "print one JSON object")
    .addHelpText("after", EXAMPLES)
    .action(async (what: string, flags: Flags) => {
      const isAdapter = await isFile(join(what, "adapter_config.json"));
      const options = { onDownload: showDownload(err) };
      const text = isAdapter ? adapterText : modelText;
      out.write(await text(what, flags, options));
    });
}

async function modelText(
  reference: string,
  { weights, json }: Flags,
  options: LoadOptions,
): Promise<string> {
  const model = await loadModel(reference, options);
  const { weights: source } = model.checkpoint;
  const tensors = weights
    ? source.names.map((name) => ({ name, ...pick(source.get(name)) }))
    : undefined;
  const inspection = inspectModel(model);
  await model.dispose();
  if (json) return `${JSON.stringify({ ...inspection, tensors }, null, 2)}\n`;
  return tensors ? tensorTable(tensors) : modelSummary(inspection);
}

async function adapterText(
  folder: string,
  { model, weights, json }: Flags,
  options: LoadOptions,
): Promise<string> {
  const adapter = await loadAdapterFolder(folder);
  const base = model === undefined ? undefined : await loadModel(model, options);
  const inspection = inspectAdapter(adapter, base);
  await base?.dispose();
  const tensors = weights
    ? [...adapter.tensors].map(([name, tensor]) => ({ name, ...pick(tensor) }))
    : undefined;
  if (json) return `${JSON.stringify({ ...inspection, tensors }, null, 2)}\n`;
  return tensors ? tensorTable(tensors) : adapterSummary(inspection);
}

interface TensorType {
  readonly dtype: string;
  readonly shape: readonly number[];
}

function pick({ dtype, shape }: TensorType): TensorType {
  return { dtype, shape };
}

function tensorTable(tensors: readonly ({ name: string } & TensorType)[]): string {
  return tensors
    .map(({ name, dtype, shape }) => `${name}  ${dtype} ${formatShape(shape)}\n`)
    .join("");
}

function modelSummary(model: ModelInspection): string {
  const { name, family, parameters, dtypes, bytes, context, vocabulary } = model;
  const rows = model.layers.map(({ module, count, inFeatures, outFeatures }) => [
    module,
    count,
    inFeatures,
    outFeatures,
  ]);
  return `${pc.bold(name)}: ${family}, ${grouped(parameters)} parameters (${dtypes.join(", ")}, ${formatBytes(bytes)})
context ${context ?? "unknown"} tokens, vocabulary ${vocabulary ?? "unknown"}, chat template: ${model.hasChatTemplate ? "yes" : "no"}

Layers that LoRA can be attached to:
${tableOf(["module", "count", "in", "out"], rows)}
`;
}

function adapterSummary(adapter: AdapterInspection): string {
  const { variant, r, alpha, baseModel, parameters, dtypes, bytes, fit } = adapter;
  const rows = adapter.layers.map((layer) => [
    layer.module,
    layer.count,
    layer.inFeatures,
    layer.outFeatures,
    layer.ranks.join(", "),
    layer.scales.map((scale) => Number(scale.toPrecision(4))).join(", "),
    grouped(layer.parameters),
  ]);
  const head = ["module", "count", "in", "out", "rank", "scale", "parameters"];
  const replaced =
    adapter.replaces.length > 0 ? `\nReplaces: ${adapter.replaces.join(", ")}\n` : "";
  return `${pc.bold(variant)}, r ${r}, alpha ${alpha}: ${grouped(parameters)} parameters (${dtypes.join(", ")}, ${formatBytes(bytes)})
base: ${baseModel ?? "not named"}

${tableOf(head, rows)}
${replaced}${fit ? `\n${fitText(fit)}` : ""}`;
}

function fitText({
  base,
  matched,
  unmatched,
  percent,
}: NonNullable<AdapterInspection["fit"]>): string {
  const lines = unmatched.map(({ module, nearest }) => {
    const near = nearest[0] === undefined ? "" : `, nearest: ${nearest[0]}`;
    return `  ${pc.red("missing")} ${module}${near}`;
  });
  const verdict = `On ${base}: ${matched} of ${matched + unmatched.length} modules match, ${percent.toFixed(2)} % of all parameters`;
  return `${[verdict, ...lines].join("\n")}\n`;
}

function tableOf(head: string[], rows: (string | number)[][]): string {
  const table = new Table({
    head: head.map((name) => pc.bold(name)),
    colAligns: head.map((_, i) => (i === 0 ? "left" : "right")),
    style: { head: [], border: [], compact: true },
  });
  table.push(...rows);
  return table.toString();
}

function grouped(count: number): string {
  return count.toLocaleString("en");
}
