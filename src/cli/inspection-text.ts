/** @file What `lorikeet inspect` prints. */
import Table from "cli-table3";
import pc from "picocolors";
import type { AdapterFit } from "../api/adapter-fit.ts";
import type { AdapterInspection, ModelInspection } from "../api/inspection.ts";
import { formatBytes } from "../host/run-files/run-numbers.ts";

/** Names of a list that are shown before the rest is counted. */
const SHOWN = 8;

/** A model: its size, and the layers that LoRA can be attached to. */
export function modelText(model: ModelInspection): string {
  const { name, family, parameters, dtypes, fileBytes, context, vocabulary } = model;
  const rows = model.layers.map((layer) => [layer.module, layer.count, layer.inFeatures, layer.outFeatures]); // prettier-ignore
  const types = (model.storedTypes ?? dtypes).join(", ");
  const text = context === undefined && vocabulary === undefined ? "" : `context ${context ?? "unknown"} tokens, vocabulary ${vocabulary ?? "unknown"}, chat template: ${model.hasChatTemplate ? "yes" : "no"}\n`; // prettier-ignore
  return `${pc.bold(name)}: ${family}, ${grouped(parameters)} parameters (${types}), ${formatBytes(fileBytes)} on disk
${text}
Layers that LoRA can be attached to:
${tableOf(["module", "count", "in", "out"], rows)}
`;
}

/** An adapter: its modules by kind, its sizes, and how it fits a base where one was given. */
export function adapterText(adapter: AdapterInspection): string {
  const { format, variant, r, alpha, baseModel, parameters, dtypes, fileBytes, fit } = adapter;
  const rows = adapter.layers.map((layer) => [
    layer.module,
    layer.count,
    layer.inFeatures,
    layer.outFeatures,
    layer.ranks.join(", "),
    layer.alphas.map(short).join(", "),
    layer.scales.map(short).join(", "),
    grouped(layer.parameters),
  ]);
  const head = ["module", "count", "in", "out", "rank", "alpha", "scale", "parameters"];
  const replaced =
    adapter.replaces.length > 0 ? `\nReplaces: ${adapter.replaces.join(", ")}\n` : "";
  return `${pc.bold(variant)} (${format}), r ${r}, alpha ${short(alpha)}: ${grouped(parameters)} parameters (${dtypes.join(", ")}), ${formatBytes(fileBytes)} on disk
base: ${baseModel ?? "not named"}

${tableOf(head, rows)}
${replaced}${fit ? `\n${fitText(fit, parameters)}` : ""}`;
}

function fitText(fit: AdapterFit, parameters: number): string {
  const { base, matched, unmatched, misfits, missed, total, percent } = fit;
  const lines = [
    `On ${base}: ${matched} of ${matched + unmatched.length + misfits.length} modules match`,
    `trainable ${grouped(parameters)} of ${grouped(total)} parameters, ${percent.toFixed(2)} %`,
    ...shortened(unmatched, ({ module, nearest }) => {
      const near = nearest[0] === undefined ? "" : `, nearest: ${nearest[0]}`;
      return `${pc.red("missing in the base")} ${module}${near}`;
    }),
    ...shortened(misfits, ({ module, expected, got }) => `${pc.red("other sizes")} ${module}: ${got}, the base has ${expected}`), // prettier-ignore
    ...shortened(missed, (module) => `${pc.yellow("a target without tensors")} ${module}`),
  ];
  return `${lines.join("\n")}\n`;
}

/** A line for each of the first items, and one that counts the rest. */
function shortened<T>(items: readonly T[], lineOf: (item: T) => string): string[] {
  const lines = items.slice(0, SHOWN).map((item) => `  ${lineOf(item)}`);
  return items.length <= SHOWN ? lines : [...lines, `  … and ${items.length - SHOWN} more like it`];
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

function short(value: number): number {
  return Number(value.toPrecision(4));
}

function grouped(count: number): string {
  return count.toLocaleString("en");
}
