import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, rename, rm, stat, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { LorikeetError } from "../errors.ts";
import { asFileError } from "./file-errors.ts";
import { isFile, makeFolder } from "./files.ts";
import { askHub, type HubAccess, type HubSubject, reasonOf } from "./hub-access.ts";

/** A file of a repository on the hub, and where the cache keeps it. */
export interface HubFile {
  readonly url: string;
  /** Bytes. */
  readonly size: number;
  /** Name of its content: a sha256 (64 digits) for large files, git's object id (40) for others. */
  readonly oid: string;
  readonly blobs: string;
  /** Link in the snapshot. */
  readonly link: string;
}

/** Whom a download asks, and who is told of it. */
export interface Download {
  readonly access: HubAccess;
  readonly subject: HubSubject;
  /** Called with the bytes of the file that are there, after each piece. */
  readonly onBytes: (have: number) => void;
}

/**
 * Puts `file` into the cache unless it is there: continues a download that broke off, checks size and hash, and links
 * it from the snapshot.
 * @throws LorikeetError `hub-download` when it ends early or is not what the hub announced; `disk-full`; what
 * `askHub` throws
 */
export async function downloadHubFile(file: HubFile, download: Download): Promise<void> {
  if (await isFile(file.link)) return;
  const blob = join(file.blobs, file.oid);
  try {
    await makeFolder(file.blobs);
    if (!(await isFile(blob))) await complete(file, blob, download);
    await makeFolder(dirname(file.link));
    await rm(file.link, { force: true });
    // a system without links (Windows) gets the file itself
    await symlink(relative(dirname(file.link), blob), file.link).catch(() => rename(blob, file.link)); // prettier-ignore
  } catch (cause) {
    throw asFileError(cause, file.link, "written");
  }
}

async function complete(file: HubFile, blob: string, download: Download): Promise<void> {
  const partial = `${blob}.incomplete`;
  const have = (await stat(partial).catch(() => undefined))?.size ?? 0;
  if (have < file.size || file.size === 0) await append(file, partial, { ...download, have });
  const { size } = await stat(partial);
  if (size < file.size)
    throw new LorikeetError("hub-download", `Expected ${file.size} bytes from ${file.url}, got ${size}`, { hint: "Run the command again: it goes on where it stopped." }); // prettier-ignore
  if (size > file.size || !(await isContent(partial, file))) {
    await rm(partial);
    throw new LorikeetError("hub-download", `Expected ${file.size} bytes with hash ${file.oid} from ${file.url}, got ${size} bytes${size === file.size ? " with another hash" : ""}`, { hint: "Run the command again: it downloads the file anew." }); // prettier-ignore
  }
  await rename(partial, blob);
}

/** Downloads what follows the first `have` bytes. */
async function append(
  file: HubFile,
  partial: string,
  { access, subject, onBytes, have }: Download & { readonly have: number },
): Promise<void> {
  const range: Record<string, string> = have > 0 ? { Range: `bytes=${have}-` } : {};
  const { response, alive, stop } = await askHub(access, subject, file.url, range);
  // a server that does not know ranges sends the whole file
  const isRest = response.status === 206;
  const handle = await open(partial, isRest ? "a" : "w");
  let done = isRest ? have : 0;
  try {
    for await (const piece of response.body ?? []) {
      alive();
      await handle.writeFile(piece as Uint8Array);
      onBytes((done += (piece as Uint8Array).length));
    }
    await handle.sync();
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && String(cause.code).startsWith("E"))
      throw cause;
    throw new LorikeetError("hub-download", `Expected ${file.size} bytes from ${file.url}, the connection broke after ${done} (${reasonOf(cause)})`, { hint: "Run the command again: it goes on where it stopped.", cause }); // prettier-ignore
  } finally {
    stop();
    await handle.close();
  }
}

/** Whether the file at `path` has the hash that names it. https://git-scm.com/book/en/v2/Git-Internals-Git-Objects */
async function isContent(path: string, { oid, size }: HubFile): Promise<boolean> {
  if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(oid)) return true;
  const hash =
    oid.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
  for await (const piece of createReadStream(path)) hash.update(piece as Uint8Array);
  return hash.digest("hex") === oid;
}
