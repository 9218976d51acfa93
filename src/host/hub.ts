import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { getHFHubCachePath, HubApiError, listFiles, type ListFileEntry, modelInfo } from "@huggingface/hub"; // prettier-ignore
import { LorikeetError } from "../errors.ts";
import { downloadHubFile } from "./hub-download.ts";
import { ADAPTER, type HubKind, MODEL, PIPELINE } from "./hub-files.ts";

/** Bytes of a file that are there, of how many. */
export interface DownloadProgress {
  readonly file: string;
  readonly have: number;
  readonly size: number;
}

/** How models are fetched; the environment is the Hugging Face tools' own. */
export interface HubOptions {
  /** Default: HF_ENDPOINT, or the public hub. */
  readonly hubUrl?: string;
  /** Default: HF_HUB_CACHE, or HF_HOME/hub, or ~/.cache/huggingface/hub. */
  readonly cacheDir?: string;
  /** Default: HF_TOKEN, or what `hf auth login` left (HF_TOKEN_PATH, or HF_HOME/token). */
  readonly token?: string;
  /** Use the cache alone; default: HF_HUB_OFFLINE. */
  readonly offline?: boolean;
  /** Called while a file is fetched. */
  readonly onProgress?: (progress: DownloadProgress) => void;
}

/** `owner/name`, with a branch, tag or commit after `@` if need be. */
const HUB_ID = /^(\w[\w.-]*\/\w[\w.-]*)(?:@([\w./-]+))?$/;

/** Whether `reference` has the form of a hub id. */
export function isHubId(reference: string): boolean {
  return HUB_ID.test(reference);
}

/**
 * The folder in the Hugging Face cache that holds the model `reference` (`owner/name`, `owner/name@revision`); what
 * is not there yet is fetched: only the files that are needed, of one commit.
 * @throws LorikeetError `hub-not-found`, `hub-gated`, `hub-private`, `hub-offline`, `hub-unreachable`, `hub-download`
 */
export async function fetchModel(reference: string, options: HubOptions = {}): Promise<string> {
  return fetchSnapshot(reference, MODEL, options);
}

/** The same for the adapter `reference`. @throws LorikeetError as `fetchModel` */
export async function fetchAdapter(reference: string, options: HubOptions = {}): Promise<string> {
  return fetchSnapshot(reference, ADAPTER, options);
}

/** The same for the image model `reference`. @throws LorikeetError as `fetchModel` */
export async function fetchPipeline(reference: string, options: HubOptions = {}): Promise<string> {
  return fetchSnapshot(reference, PIPELINE, options);
}

async function fetchSnapshot(
  reference: string,
  kind: HubKind,
  options: HubOptions,
): Promise<string> {
  const [, id, revision = "main"] = HUB_ID.exec(reference) as unknown as [string, string, string?];
  const repository = join(
    options.cacheDir ?? getHFHubCachePath(),
    `models--${id.replace("/", "--")}`,
  );
  if (options.offline ?? isSet("HF_HUB_OFFLINE")) return cached(repository, id, revision);
  const access = await accessOf(options);
  try {
    const { sha } = await modelInfo({ name: id, revision, additionalFields: ["sha"], ...access });
    const snapshot = join(repository, "snapshots", sha);
    const files = await neededFiles({ id, sha, kind }, access);
    await fetchFiles(files, { id, sha, repository, snapshot }, access, options.onProgress);
    const reference = join(repository, "refs", revision);
    await mkdir(dirname(reference), { recursive: true });
    if (sha !== revision) await writeFile(reference, sha);
    return snapshot;
  } catch (cause) {
    throw explained(cause, { id, revision, hasToken: access.accessToken !== undefined });
  }
}

interface Access {
  readonly hubUrl: string;
  readonly accessToken?: string;
}

async function accessOf({ hubUrl, token }: HubOptions): Promise<Access> {
  const accessToken = token ?? (await hubToken());
  return {
    hubUrl: hubUrl ?? process.env["HF_ENDPOINT"] ?? "https://huggingface.co",
    ...(accessToken !== undefined && { accessToken }),
  };
}

/** The token in the environment, or the one that `hf auth login` saved. */
export async function hubToken(): Promise<string | undefined> {
  const home = process.env["HF_HOME"] ?? join(homedir(), ".cache", "huggingface");
  const path = process.env["HF_TOKEN_PATH"] ?? join(home, "token");
  const token = process.env["HF_TOKEN"] ?? (await readFile(path, "utf8").catch(() => ""));
  return token.trim() || undefined;
}

function isSet(variable: string): boolean {
  return /^(1|true|yes|on)$/i.test(process.env[variable] ?? "");
}

async function fetchFiles(
  files: readonly ListFileEntry[],
  { id, sha, repository, snapshot }: { id: string; sha: string; repository: string; snapshot: string }, // prettier-ignore
  access: Access,
  onProgress: HubOptions["onProgress"],
): Promise<void> {
  const { hubUrl, accessToken } = access;
  const headers: Record<string, string> = accessToken === undefined ? {} : { Authorization: `Bearer ${accessToken}` }; // prettier-ignore
  for (const { path, size, oid, lfs } of files) {
    const file = {
      url: `${hubUrl}/${id}/resolve/${sha}/${path}`,
      size,
      oid: lfs?.oid ?? oid!,
      isSha256: lfs !== undefined,
      blobs: join(repository, "blobs"),
      link: join(snapshot, path),
    };
    await downloadHubFile(file, headers, (have) => onProgress?.({ file: path, have, size }));
  }
}

async function neededFiles(
  { id, sha, kind }: { id: string; sha: string; kind: HubKind },
  access: Access,
): Promise<ListFileEntry[]> {
  const files: ListFileEntry[] = [];
  for await (const file of listFiles({
    repo: id,
    revision: sha,
    recursive: kind.recursive,
    ...access,
  }))
    if (file.type === "file") files.push(file);
  const paths = files.map(({ path }) => path);
  const chosen = kind.choose(paths);
  if (chosen) return files.filter(({ path }) => chosen.includes(path));
  throw new LorikeetError(
    "missing-weights",
    `Expected ${id} to hold ${kind.what}, it holds ${paths.join(", ")}`,
    { hint: kind.hint },
  );
}

/** The snapshot in the cache. @throws LorikeetError `hub-offline` */
async function cached(repository: string, id: string, revision: string): Promise<string> {
  const reference = join(repository, "refs", revision);
  const sha = (await readFile(reference, "utf8").catch(() => revision)).trim();
  const snapshot = join(repository, "snapshots", sha);
  const files = await readdir(snapshot).catch((): string[] => []);
  if (
    ["config.json", "adapter_config.json", "model_index.json"].some((name) => files.includes(name))
  )
    return snapshot;
  throw new LorikeetError("hub-offline", `Expected ${id} in the cache ${repository}, as HF_HUB_OFFLINE is set; it is not there`, { hint: "Unset HF_HUB_OFFLINE to download it, or name a folder." }); // prettier-ignore
}

function explained(
  cause: unknown,
  { id, revision, hasToken }: { id: string; revision: string; hasToken: boolean },
): unknown {
  if (cause instanceof LorikeetError) return cause;
  if (!(cause instanceof HubApiError))
    return new LorikeetError("hub-unreachable", `Expected an answer of the hub about ${id}, got none`, { hint: "Check the connection; a model that is in the cache loads with HF_HUB_OFFLINE=1.", cause }); // prettier-ignore
  const { statusCode: status, message } = cause;
  const where = `https://huggingface.co/${id}`;
  if (status === 403 || /restricted|awaiting a review/i.test(message))
    return new LorikeetError("hub-gated", `Expected access to ${id}, which its owner gives on request only`, { hint: `Ask for it at ${where}, then set HF_TOKEN to a token of that account.`, cause }); // prettier-ignore
  if (status === 401)
    return new LorikeetError("hub-private", `Expected ${id} to be readable${hasToken ? " with this HF_TOKEN" : ""}; it is private or does not exist`, { hint: "Check the name; for a private model set HF_TOKEN to a token that may read it.", cause }); // prettier-ignore
  if (status === 404)
    return new LorikeetError("hub-not-found", `Expected a model ${id} at revision ${revision}, the hub has none`, { hint: `Check the name at ${where}.`, cause }); // prettier-ignore
  return new LorikeetError("hub-unreachable", `Expected an answer of the hub about ${id}, got status ${status}`, { hint: "Try again later; what was downloaded is kept.", cause }); // prettier-ignore
}
