import { createHash, randomUUID } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";

const cache = new URL("../node_modules/.cache/typescript-hooks/", import.meta.url);

/** Module hook: gives `.ts` files to Node as JavaScript. */
export async function load(url, context, nextLoad) {
  if (!/^file:.*\.ts$/.test(url)) return nextLoad(url, context);
  const source = await transpiled(url, await readFile(new URL(url), "utf8"));
  return { format: "module", source, shortCircuit: true };
}

/** Kept on disk by content, as loading the compiler costs more than all else a worker does at its start. */
async function transpiled(url, text) {
  const key = createHash("sha256").update(`${url}\0${text}`).digest("hex");
  const file = new URL(`${key}.js`, cache);
  try {
    return await readFile(file, "utf8");
  } catch {
    const code = await transpile(url, text);
    const temporary = new URL(`${key}.${randomUUID()}.tmp`, cache);
    await mkdir(cache, { recursive: true });
    await writeFile(temporary, code);
    await rename(temporary, file);
    return code;
  }
}

async function transpile(url, text) {
  const { default: typescript } = await import("typescript");
  const { outputText } = typescript.transpileModule(text, {
    fileName: url,
    compilerOptions: {
      target: typescript.ScriptTarget.ES2023,
      module: typescript.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
      inlineSourceMap: true,
    },
  });
  return outputText;
}
