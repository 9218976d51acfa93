import { randomUUID } from "node:crypto";
import { type FileHandle, mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { type ByteSource, truncated } from "../formats/byte-source.ts";
import { asFileError } from "./file-errors.ts";
import { whileUnfinished } from "./unfinished.ts";

/** A file on disk as a source; `path` is absolute. */
export interface FileSource extends ByteSource {
  readonly path: string;
}

/** Node reads at most 2 GiB at once. */
const LONGEST_READ = 2 ** 30;

/**
 * The file at `path` as a random-access source. It is opened for each read, so there is nothing to close.
 * @throws LorikeetError `file-not-found`, `file-is-folder`, `permission-denied`
 */
export async function fileSource(path: string): Promise<FileSource> {
  const absolute = resolve(path);
  const info = await stat(absolute).catch((cause: unknown) => {
    throw asFileError(cause, path, "readable");
  });
  if (info.isDirectory())
    throw asFileError(Object.assign(new Error(), { code: "EISDIR" }), path, "a file");
  const { size } = info;
  return {
    name: path,
    path: absolute,
    size,
    async read(offset, length) {
      if (offset + length > size) throw truncated(path, offset + length, size);
      try {
        const handle = await open(absolute, "r");
        try {
          return await readFully(handle, path, offset, length);
        } finally {
          await handle.close();
        }
      } catch (cause) {
        throw asFileError(cause, path, "readable");
      }
    },
  };
}

async function readFully(
  handle: FileHandle,
  path: string,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafeSlow(length);
  let done = 0;
  while (done < length) {
    const count = Math.min(length - done, LONGEST_READ);
    const { bytesRead } = await handle.read(bytes, done, count, offset + done);
    if (bytesRead === 0) throw truncated(path, offset + length, offset + done);
    done += bytesRead;
  }
  return new Uint8Array(bytes.buffer, bytes.byteOffset, length);
}

/** The text (UTF-8) of the file at `path`. @throws LorikeetError `file-not-found`, `permission-denied` */
export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw asFileError(cause, path, "readable");
  }
}

/** Whether there is a file (not a folder) at `path`. */
export async function isFile(path: string): Promise<boolean> {
  const info = await stat(path).catch(() => undefined);
  return info?.isFile() ?? false;
}

/** What a file is written from: text, bytes, or pieces of bytes that are made as they are written. */
export type Content = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/**
 * Writes the file at `path` whole or not at all: to a temporary name beside it, flushed to the disk, then renamed.
 * Missing folders are made. On any error the temporary file is removed and what was at `path` is left as it was.
 * @throws LorikeetError `disk-full`, `read-only`, `permission-denied`, and whatever making `content` throws
 */
export async function writeAtomically(path: string, content: Content): Promise<void> {
  const folder = dirname(resolve(path));
  const temporary = `${resolve(path)}.${randomUUID().slice(0, 8)}.tmp`;
  await whileUnfinished(temporary, async () => {
    try {
      await makeFolder(folder);
      const handle = await open(temporary, "wx");
      try {
        for await (const piece of pieces(content)) await writeFully(handle, piece);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporary, path);
    } catch (cause) {
      await rm(temporary, { force: true }).catch(() => undefined);
      throw asFileError(cause, path, "written");
    }
  });
  await syncFolder(folder);
}

/**
 * Makes `folder` and its parents. Node's own `recursive` never ends where a parent takes no folders (/proc), and calls a
 * read-only file system ENOENT.
 */
export async function makeFolder(folder: string): Promise<void> {
  const parent = dirname(folder);
  try {
    await mkdir(folder).catch(async (cause: unknown) => {
      if ((cause as NodeJS.ErrnoException).code !== "ENOENT" || parent === folder) throw cause;
      await makeFolder(parent);
      await mkdir(folder);
    });
  } catch (cause) {
    const there = await stat(folder).catch(() => undefined);
    if (there?.isDirectory()) return;
    throw there ? Object.assign(new Error("a file", { cause }), { code: "ENOTDIR" }) : cause;
  }
}

function pieces(content: Content): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  if (typeof content === "string") return [Buffer.from(content, "utf8")];
  return content instanceof Uint8Array ? [content] : content;
}

async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const count = Math.min(bytes.length - done, LONGEST_READ);
    done += (await handle.write(bytes, done, count)).bytesWritten;
  }
}

/** Makes a rename last through a power cut, where folders can be flushed (not on Windows). */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

/** Writes `value` as JSON of two spaces. @throws LorikeetError what `writeAtomically` throws */
export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeAtomically(path, `${JSON.stringify(value, undefined, 2)}\n`);
}
