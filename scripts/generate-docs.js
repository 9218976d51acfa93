/**
 * @file Writes docs/ops.md from the registry of ops and their docstrings, docs/config.md from the settings of a
 * training run, docs/cli.md from the commands' help; `--check` fails when one would change.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { format } from "prettier";
import { cliPage } from "./cli-page.js";
import "./typescript.js";

const { registry } = await import("../src/ops/registry.ts");
const { configPage } = await import("../src/host/train-config-docs.ts");

const sources = readdirSync("src/ops")
  .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"))
  .map((file) => ({ file, text: readFileSync(`src/ops/${file}`, "utf8") }));

await writeOrCheck("docs/ops.md", opsPage());
await writeOrCheck("docs/config.md", configPage());
await writeOrCheck("docs/cli.md", await cliPage());

async function writeOrCheck(path, markdown) {
  const page = new URL(`../${path}`, import.meta.url);
  const text = await format(markdown, { parser: "markdown", printWidth: 100 });
  if (!process.argv.includes("--check")) writeFileSync(page, text);
  else if (!existsSync(page) || text !== readFileSync(page, "utf8")) {
    console.error(`${path} differs from what it is made from; run: node scripts/generate-docs.js`);
    process.exitCode = 1;
  }
}

function opsPage() {
  const primitives = registry.filter((rules) => !rules.decompose);
  const composites = registry.filter((rules) => rules.decompose);
  return `<!-- Written by scripts/generate-docs.js; edit the docstrings in src/ops instead. -->

# Operations

What a graph is made of: ${registry.length} ops besides the leaves. Engines run an op by their own lowering
or, without one, by its decomposition. How to add one: [adding-an-op.md](adding-an-op.md).

## Primitives

Defined by a loop over float64 values in the reference engine. Nothing flows back through an op without
gradient.

${primitives.map(entry).join("\n")}

## Composites

Defined by other ops. A gradient rule of their own is a faster one than their decomposition's.

${composites.map(entry).join("\n")}
`;
}

/** A line for each op: in a table, one changed cell would realign every row. */
function entry({ name, inputs, decompose, gradient, onnx }) {
  const { file, doc } = sourceOf(name);
  const derivative = gradient ? "gradient rule" : decompose ? "gradient by parts" : "no gradient";
  const lowering = onnx ? "own ONNX lowering" : "ONNX by parts";
  return `- [${name}](../src/ops/${file}) \`(${inputs.join(", ")})\`: ${doc} _${derivative}; ${lowering}_`;
}

/** File and docstring of the op `name`. @throws Error when it has none */
function sourceOf(name) {
  const docstring = new RegExp(
    String.raw`/\*\*((?:(?!\*/)[^])*)\*/\s*export (?:const|function) ${name}\b`,
  );
  for (const { file, text } of sources) {
    const found = docstring.exec(text);
    if (found) return { file, doc: found[1].replace(/\s*\n\s*\*\s?/g, " ").trim() };
  }
  throw new Error(`Expected a docstring above the op "${name}" in src/ops, found none`);
}
