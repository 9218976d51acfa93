import { randomUUID } from "node:crypto";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { LorikeetError } from "../errors.ts";
import { asFileError } from "./file-errors.ts";

/**
 * Lets `write` fill a folder that appears at `path` whole or not at all.
 * @throws LorikeetError `output-exists` when there is something at `path` and `overwrite` is not set; `disk-full`,
 * `read-only`, `permission-denied`; what `write` throws
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
  const temporary = `${target}.${randomUUID().slice(0, 8)}.tmp`;
  try {
    await mkdir(dirname(target), { recursive: true });
    await mkdir(temporary);
    const result = await write(temporary);
    if (held !== undefined) await rm(target, { recursive: true });
    await rename(temporary, target);
    return result;
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw asFileError(cause, path, "written");
  }
}

/** @throws LorikeetError `output-exists` when there is a file or folder at `path` */
export async function refuseExisting(path: string): Promise<void> {
  if (!(await stat(path).catch(() => undefined))) return;
  throw new LorikeetError("output-exists", `Expected nothing at ${path}, there is something`, {
    hint: "Choose another name, or add --overwrite.",
  });
}
