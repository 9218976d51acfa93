import { readFile } from "node:fs/promises";

/** Module hook: gives `.ts` files to Node as JavaScript. */
export async function load(url, context, nextLoad) {
  if (!/^file:.*\.ts$/.test(url)) return nextLoad(url, context);
  const { default: typescript } = await import("typescript");
  const text = await readFile(new URL(url), "utf8");
  const { outputText } = typescript.transpileModule(text, {
    fileName: url,
    compilerOptions: {
      target: typescript.ScriptTarget.ES2023,
      module: typescript.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
      inlineSourceMap: true,
    },
  });
  return { format: "module", source: outputText, shortCircuit: true };
}
