import { randomUUID } from "node:crypto";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, isAbsolute, relative, resolve } from "node:path";
import { LorikeetError } from "../errors.ts";
import { asFileError } from "./file-errors.ts";
import { makeFolder } from "./files.ts";
import { whileUnfinished } from "./unfinished.ts";

/**
 * Lets `write` fill a folder that appears at `path` whole or not at all.
 * @throws LorikeetError `output-exists` when there is something at `path` and `overwrite` is not set, or what is there
 * is no model; `disk-full`, `read-only`, `permission-denied`; what `write` throws
 */
export async function writeFolder<T>(
  path: string,
  { overwrite = false }: { readonly overwrite?: boolean },
  write: (folder: string) => Promise<T>,
): Promise<T> {
  const target = resolve(path);
  const held = await readdir(target).catch((cause: unknown) => {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw asFileError(cause, path, "a folder");
  });
  if (held !== undefined && held.length > 0 && !overwrite)
    throw new LorikeetError("output-exists", `Expected ${path} to be new or empty, it holds ${held.length} files`, { hint: "Choose another folder, or add --overwrite to replace it." }); // prettier-ignore
  if (held !== undefined && held.length > 0) refuseOthers(path, held);
  const temporary = `${target}.${randomUUID().slice(0, 8)}.tmp`;
  return whileUnfinished(temporary, async () => {
    try {
      await makeFolder(dirname(target));
      await mkdir(temporary);
      const result = await write(temporary);
      if (held !== undefined) await rm(target, { recursive: true });
      await rename(temporary, target);
      return result;
    } catch (cause) {
      await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
      throw asFileError(cause, path, "written");
    }
  });
}

/** Files that a folder of a model has, in one of the formats that are written. */
const MODEL_FILE = /^(config|model_index)\.json$|\.gguf$/;
const RUN_FILE = /^(adapter_config\.json|train-config\.yaml|checkpoint-\d+)$/;

/** Overwriting removes the whole folder: that may be a model, and nothing else. */
function refuseOthers(path: string, held: readonly string[]): void {
  const inside = relative(resolve(path), process.cwd());
  const isAround = !inside.startsWith("..") && !isAbsolute(inside);
  const run = held.find((name) => RUN_FILE.test(name));
  if (held.some((name) => MODEL_FILE.test(name)) && run === undefined && !isAround) return;
  const what = isAround ? "is around the working folder" : `holds ${run ?? held[0]!}`;
  throw new LorikeetError("output-exists", `Expected ${path} to hold a model alone, as overwriting removes the whole folder; it ${what}`, { hint: "Choose another folder." }); // prettier-ignore
}

/** @throws LorikeetError `output-exists` when there is a file or folder at `path` */
export async function refuseExisting(path: string): Promise<void> {
  if (!(await stat(path).catch(() => undefined))) return;
  throw new LorikeetError("output-exists", `Expected nothing at ${path}, there is something`, {
    hint: "Choose another name, or add --overwrite.",
  });
}
