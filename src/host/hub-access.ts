import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { LorikeetError } from "../errors.ts";

/** Which hub is asked, and as whom. */
export interface HubAccess {
  /** The hub's address, without a slash at its end. */
  readonly url: string;
  readonly token: string | undefined;
  /** Milliseconds without a sign of life after which the hub counts as unreachable. */
  readonly patience: number;
}

/** What is asked for. */
export interface HubSubject {
  readonly id: string;
  readonly revision: string;
}

/** What the hub answers to a request; `alive` puts off the end of its patience, `stop` has to be called when it is read. */
export interface HubAnswer {
  readonly response: Response;
  readonly alive: () => void;
  readonly stop: () => void;
}

/** Access as given, or as the environment says: HF_ENDPOINT, HF_TOKEN, HF_HUB_DOWNLOAD_TIMEOUT (seconds, default 30). */
export async function hubAccess(given: { hubUrl?: string; token?: string }): Promise<HubAccess> {
  const url = given.hubUrl ?? (process.env["HF_ENDPOINT"] || "https://huggingface.co");
  const seconds = Number(process.env["HF_HUB_DOWNLOAD_TIMEOUT"]);
  const patience = (seconds > 0 ? seconds : 30) * 1000;
  return { url: url.replace(/\/+$/, ""), token: given.token ?? (await hubToken()), patience };
}

/** The token in the environment, or the one that `hf auth login` saved. */
export async function hubToken(): Promise<string | undefined> {
  const cache = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
  const home = process.env["HF_HOME"] ?? join(cache, "huggingface");
  const path = process.env["HF_TOKEN_PATH"] ?? join(home, "token");
  const saved = (): Promise<string> => readFile(path, "utf8").catch(() => "");
  return process.env["HF_TOKEN"]?.trim() || (await saved()).trim() || undefined;
}

/** Whether the environment asks for the cache alone: HF_HUB_OFFLINE, or transformers' own name for it. */
export function isOffline(): boolean {
  return ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].some((name) => isYes(process.env[name] ?? ""));
}

function isYes(value: string): boolean {
  return /^(1|true|yes|on)$/i.test(value);
}

/**
 * Asks the hub for `url`.
 * @throws LorikeetError `hub-unreachable` when there is no answer in time; for a refusal what `refused` gives
 */
export async function askHub(
  access: HubAccess,
  subject: HubSubject,
  url: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<HubAnswer> {
  const { token, patience } = access;
  const ending = new AbortController();
  const end = (): void => ending.abort(new Error(`nothing came for ${patience / 1000} s`));
  const timer = setTimeout(end, patience);
  const own = { ...headers, ...(token !== undefined && { Authorization: `Bearer ${token}` }) };
  let response: Response;
  try {
    response = await fetch(url, { headers: own, signal: ending.signal });
    if (!response.ok) throw await refused(response, access, subject);
  } catch (cause) {
    clearTimeout(timer);
    throw cause instanceof LorikeetError ? cause : unreachable(cause, access, subject);
  }
  return { response, alive: () => timer.refresh(), stop: () => clearTimeout(timer) };
}

/** `fetch` for a library: a whole answer, or an error as `askHub` throws it. */
export function hubFetch(access: HubAccess, subject: HubSubject): typeof fetch {
  return async (asked, init) => {
    const url = asked instanceof Request ? asked.url : asked.toString();
    const headers = init?.headers as Record<string, string> | undefined;
    const { response, stop } = await askHub(access, subject, url, headers);
    try {
      return new Response(await response.arrayBuffer(), response);
    } catch (cause) {
      throw unreachable(cause, access, subject);
    } finally {
      stop();
    }
  };
}

function unreachable(cause: unknown, { url }: HubAccess, { id }: HubSubject): LorikeetError {
  return new LorikeetError(
    "hub-unreachable",
    `Expected an answer of ${url} about ${id}, got none (${reasonOf(cause)})`,
    {
      hint: "Check the connection; a model that is in the cache loads with HF_HUB_OFFLINE=1.",
      cause,
    },
  );
}

/** Why a request failed: the operating system's word for it where there is one. */
export function reasonOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  const { code, message } = (cause.cause ?? cause) as { code?: unknown; message?: string };
  return typeof code === "string" ? code : (message ?? cause.message);
}

/** The error for an answer that is none: `hub-gated`, `hub-private`, `hub-not-found` or `hub-unreachable`. */
async function refused(
  response: Response,
  { url, token }: HubAccess,
  { id, revision }: HubSubject,
): Promise<LorikeetError> {
  const { status, headers } = response;
  const kind = headers.get("X-Error-Code") ?? "";
  const said =
    headers.get("X-Error-Message") ?? (errorIn(await response.text()) || `status ${status}`);
  const page = `${url}/${id}`;
  const cause = new Error(`${status} ${said}`);
  if (kind === "GatedRepo" || status === 403 || /restricted|awaiting a review/i.test(said)) {
    const hint =
      token === undefined
        ? `Accept its licence at ${page}, then set HF_TOKEN to a token of that account (${url}/settings/tokens).`
        : `Accept its licence at ${page} with the account of this token; the token must be allowed to read gated models.`;
    return new LorikeetError("hub-gated", `Expected access to ${id}, which its owner gives on request only; the hub says: ${said}`, { hint, cause }); // prettier-ignore
  }
  if (kind === "RevisionNotFound")
    return new LorikeetError("hub-not-found", `Expected ${id} to have a revision ${revision}, it has none of that name`, { hint: `Its branches and tags are listed at ${page}/tree/main.`, cause }); // prettier-ignore
  if (status === 401 && token !== undefined && kind !== "RepoNotFound")
    return new LorikeetError("hub-private", `Expected the hub to accept the token in use for ${id}, it says: ${said}`, { hint: `Set HF_TOKEN to a valid token (${url}/settings/tokens), or unset it for a public model.`, cause }); // prettier-ignore
  if (status === 401)
    return new LorikeetError("hub-private", `Expected ${id} to be readable; it is private or does not exist`, { hint: "Check the name; for a private model set HF_TOKEN to a token that may read it.", cause }); // prettier-ignore
  if (status === 404)
    return new LorikeetError("hub-not-found", `Expected a model ${id} at revision ${revision}, the hub has none`, { hint: `Check the name at ${page}; a private model needs a token that may read it.`, cause }); // prettier-ignore
  const hint =
    status === 429
      ? "The hub asks for a pause: try again in some minutes; with HF_TOKEN it allows more."
      : "Try again later; what was downloaded is kept.";
  return new LorikeetError("hub-unreachable", `Expected an answer of ${url} about ${id}, got status ${status}: ${said}`, { hint, cause }); // prettier-ignore
}

/** What a refusal's body says: the field `error` of JSON; a page for people says nothing here. */
function errorIn(body: string): string {
  try {
    const { error } = JSON.parse(body) as { error?: unknown };
    return typeof error === "string" ? error : "";
  } catch {
    return "";
  }
}
