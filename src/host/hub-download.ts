import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, rm, stat, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { LorikeetError } from "../errors.ts";
import { asFileError } from "./file-errors.ts";
import { isFile } from "./files.ts";

/** A file of a repository on the hub, and where the cache keeps it. */
export interface HubFile {
  readonly url: string;
  /** Bytes. */
  readonly size: number;
  /** Name of its content: a sha256 for large files, git's object id for others. */
  readonly oid: string;
  readonly isSha256: boolean;
  readonly blobs: string;
  /** Link in the snapshot. */
  readonly link: string;
}

/** Called with the bytes of a file that are there, after each piece. */
export type OnBytes = (have: number) => void;

/**
 * Puts `file` into the cache unless it is there: continues a download that broke off, checks size and hash, and links
 * it from the snapshot.
 * @throws LorikeetError `hub-download` when it ends early or is not what the hub announced; `disk-full`
 */
export async function downloadHubFile(
  file: HubFile,
  headers: Readonly<Record<string, string>>,
  onBytes: OnBytes = () => undefined,
): Promise<void> {
  if (await isFile(file.link)) return;
  const blob = join(file.blobs, file.oid);
  try {
    await mkdir(file.blobs, { recursive: true });
    if (!(await isFile(blob))) await complete(file, blob, headers, onBytes);
    await mkdir(dirname(file.link), { recursive: true });
    await rm(file.link, { force: true });
    // a system without links (Windows) gets the file itself
    await symlink(relative(dirname(file.link), blob), file.link).catch(() => rename(blob, file.link)); // prettier-ignore
  } catch (cause) {
    throw asFileError(cause, file.link, "written");
  }
}

async function complete(
  file: HubFile,
  blob: string,
  headers: Readonly<Record<string, string>>,
  onBytes: OnBytes,
): Promise<void> {
  const partial = `${blob}.incomplete`;
  const have = (await stat(partial).catch(() => undefined))?.size ?? 0;
  if (have < file.size) await append({ file, have, headers, onBytes }, partial);
  const { size } = await stat(partial);
  const isRight = size === file.size && (!file.isSha256 || (await sha256(partial)) === file.oid);
  if (!isRight) {
    if (size >= file.size) await rm(partial);
    throw new LorikeetError("hub-download", `Expected ${file.size} bytes with hash ${file.oid} from ${file.url}, got ${size} bytes${size === file.size ? " with another hash" : ""}`, { hint: "Run the command again: it goes on where it stopped." }); // prettier-ignore
  }
  await rename(partial, blob);
}

/** A download that goes on from byte `have`. */
interface Rest {
  readonly file: HubFile;
  readonly have: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly onBytes: OnBytes;
}

async function append({ file, have, headers, onBytes }: Rest, partial: string): Promise<void> {
  const range: Record<string, string> = have > 0 ? { Range: `bytes=${have}-` } : {};
  const response = await fetch(file.url, { headers: { ...headers, ...range } });
  if (response.status === 401 || response.status === 403)
    throw new LorikeetError("hub-gated", `Expected to be allowed to read ${file.url}, got status ${response.status}`, { hint: "Its owner gives access on request: ask on the model's page, then set HF_TOKEN to a token of that account." }); // prettier-ignore
  if (!response.ok || !response.body)
    throw new LorikeetError("hub-download", `Expected ${file.url}, got status ${response.status}`, {
      hint: "Try again later; what was downloaded is kept.",
    });
  // a server that does not know ranges sends the whole file
  const isRest = response.status === 206;
  const handle = await open(partial, isRest ? "a" : "w");
  let done = isRest ? have : 0;
  try {
    for await (const piece of response.body) {
      await handle.writeFile(piece as Uint8Array);
      onBytes((done += (piece as Uint8Array).length));
    }
    await handle.sync();
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && String(cause.code).startsWith("E"))
      throw cause;
    throw new LorikeetError("hub-download", `Expected ${file.size} bytes from ${file.url}, the connection broke after ${done}`, { hint: "Run the command again: it goes on where it stopped.", cause }); // prettier-ignore
  } finally {
    await handle.close();
  }
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(path)) hash.update(piece as Uint8Array);
  return hash.digest("hex");
}
