import { createHash } from "node:crypto";
import { mkdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build, type Plugin } from "vite";

const root = fileURLToPath(new URL("../", import.meta.url));
const source = join(root, "src/backends/onnx/worker.ts");

/**
 * Gives the engine's thread one compiled file, as Vitest does not transform what threads load. Hundreds of tests open an
 * engine, and with a module hook of its own each thread took twice as long to start.
 */
export const onnxWorkerBundle: Plugin = {
  name: "onnx-worker-bundle",
  enforce: "pre",
  async transform(code, id) {
    if (!id.endsWith("/src/backends/onnx/worker-client.ts")) return undefined;
    const { folder, modules } = await bundle();
    for (const module of modules) this.addWatchFile(module);
    const here = JSON.stringify(pathToFileURL(join(folder, "worker-client.js")).href);
    if (!code.includes("import.meta.url"))
      this.error("the engine's thread is started otherwise now");
    return code.replaceAll("import.meta.url", here);
  },
};

/** A folder, named after the content, that holds worker.js, and the sources that went into it. */
async function bundle(): Promise<{ folder: string; modules: readonly string[] }> {
  const result = await build({
    ...{ root, configFile: false, logLevel: "warn" },
    build: { ssr: source, write: false, target: "node20" },
  });
  if (!("output" in result) || result.output.length > 1)
    throw new Error(`Expected ${source} to be bundled in one file`);
  const [chunk] = result.output;
  const name = createHash("sha256").update(chunk.code).digest("hex").slice(0, 16);
  const folder = join(root, "node_modules/.cache/onnx-worker", name);
  await mkdir(folder, { recursive: true });
  const temporary = join(folder, `${process.pid}-${performance.now()}.tmp`);
  await writeFile(temporary, chunk.code);
  await rename(temporary, join(folder, "worker.js")); // another run may be using it
  return { folder, modules: chunk.moduleIds };
}
