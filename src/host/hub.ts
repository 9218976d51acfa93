import { readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { getHFHubCachePath, listFiles, type ListFileEntry, modelInfo } from "@huggingface/hub";
import { LorikeetError } from "../errors.ts";
import { asFileError } from "./file-errors.ts";
import { makeFolder } from "./files.ts";
import { type HubAccess, hubAccess, hubFetch, type HubSubject, isOffline } from "./hub-access.ts";
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
  if (options.offline ?? isOffline()) return cached(repository, id, revision);
  const access = await hubAccess(options);
  const subject = { id, revision };
  const ask = { hubUrl: access.url, fetch: hubFetch(access, subject) };
  try {
    const { sha } = await modelInfo({ name: id, revision, additionalFields: ["sha"], ...ask });
    const snapshot = join(repository, "snapshots", sha);
    const files = await neededFiles({ id, sha, kind }, ask);
    const place = { sha, blobs: join(repository, "blobs"), snapshot };
    await fetchFiles(files, { access, subject, place }, options.onProgress);
    if (sha !== revision) await note(join(repository, "refs", revision), sha);
    return snapshot;
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw asFileError(cause, repository, "written");
    throw new LorikeetError("hub-unreachable", `Expected JSON of ${access.url} about ${id}, got something else`, { hint: "A proxy or a login page may answer in the hub's place; check HF_ENDPOINT.", cause }); // prettier-ignore
  }
}

/** Writes down that the branch or tag `reference` stands at commit `sha`, unless it says so: a cache may be read-only. */
async function note(reference: string, sha: string): Promise<void> {
  if ((await readFile(reference, "utf8").catch(() => "")) === sha) return;
  await makeFolder(dirname(reference));
  await writeFile(reference, sha);
}

/** Where the files of one commit come from and go to. */
interface Fetching {
  readonly access: HubAccess;
  readonly subject: HubSubject;
  readonly place: { readonly sha: string; readonly blobs: string; readonly snapshot: string };
}

async function fetchFiles(
  files: readonly ListFileEntry[],
  { access, subject, place }: Fetching,
  onProgress: HubOptions["onProgress"],
): Promise<void> {
  for (const { path, size, oid, lfs } of files) {
    const file = {
      url: `${access.url}/${subject.id}/resolve/${place.sha}/${path}`,
      size,
      oid: lfs?.oid ?? oid!,
      blobs: place.blobs,
      link: join(place.snapshot, path),
    };
    const onBytes = (have: number): void => onProgress?.({ file: path, have, size });
    await downloadHubFile(file, { access, subject, onBytes });
  }
}

async function neededFiles(
  { id, sha, kind }: { id: string; sha: string; kind: HubKind },
  ask: { readonly hubUrl: string; readonly fetch: typeof fetch },
): Promise<ListFileEntry[]> {
  const files: ListFileEntry[] = [];
  for await (const file of listFiles({
    repo: id,
    revision: sha,
    recursive: kind.recursive,
    ...ask,
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

/** What a model or an adapter has at its top. */
const MARKS = /^(config|adapter_config|model_index)\.json$|\.(safetensors|bin)$|^unet$/;

/** The snapshot in the cache. @throws LorikeetError `hub-offline` */
async function cached(repository: string, id: string, revision: string): Promise<string> {
  const reference = join(repository, "refs", revision);
  const sha = (await readFile(reference, "utf8").catch(() => revision)).trim();
  const snapshot = join(repository, "snapshots", sha);
  const files = await readdir(snapshot).catch((): string[] => []);
  if (files.some((name) => MARKS.test(name))) return snapshot;
  throw new LorikeetError("hub-offline", `Expected ${id} in the cache ${repository}, as HF_HUB_OFFLINE is set; it is not there`, { hint: "Unset HF_HUB_OFFLINE to download it, or name a folder." }); // prettier-ignore
}
