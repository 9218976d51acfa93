import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, it, vi } from "vitest";
import { fetchModel } from "./hub.ts";
import { hubToken, isOffline } from "./hub-access.ts";

const SHA = "0123456789abcdef0123456789abcdef01234567";
const content = Buffer.from("{}");
/** Git's name of `content`: `echo -n {} | git hash-object --stdin`. */
const OID = "9e26dfeeb6e641a33dae4961196235bdb965b21b";
let server: Server;
let folder: string;

/** What the hub of the test answers to each kind of repository. */
function answer(id: string, url: string, response: ServerResponse, token = ""): void {
  const refuse = (status: number, kind: string, error: string): void => {
    response.writeHead(status, { "Content-Type": "application/json", "X-Error-Code": kind });
    response.end(JSON.stringify({ error }));
  };
  const isFile = url.includes("/resolve/");
  if (id === "silent") return;
  const oid = id === "altered" ? SHA : OID;
  const files = ["config.json", "model.safetensors"].map((path) => ({ type: "file", path, size: 2, oid })); // prettier-ignore
  if (id === "page") response.end("<html>Please log in</html>");
  else if (id === "expired") refuse(401, "", "Invalid credentials in Authorization header");
  else if (id === "unreleased") refuse(404, "RevisionNotFound", "Invalid rev id: v9");
  else if (id === "licensed" && isFile)
    refuse(token ? 403 : 401, "GatedRepo", "Access to model is restricted.");
  else if (id === "stalls" && isFile) response.write(content.subarray(0, 1));
  else if (isFile) response.end(content);
  else {
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify(url.includes("/tree/") ? files : { _id: "1", id, sha: SHA }));
  }
}

beforeAll(async () => {
  server = createServer(({ url = "", headers }, response) => {
    const id = /^(?:\/api\/models)?\/some\/(\w+)/.exec(url)?.[1];
    if (id) answer(id, url, response, headers.authorization);
    else response.writeHead(404).end();
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  folder = await mkdtemp(join(tmpdir(), "lorikeet-access-"));
});
afterEach(() => vi.unstubAllEnvs());
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await rm(folder, { recursive: true });
});

const address = (): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
const fetched = (reference: string, more = {}): Promise<string> => {
  vi.stubEnv("HF_HUB_DOWNLOAD_TIMEOUT", "0.2");
  vi.stubEnv("HF_HOME", folder);
  vi.stubEnv("HF_TOKEN", "");
  return fetchModel(reference, { hubUrl: address(), cacheDir: folder, ...more });
};
const text = (pattern: string): string => expect.stringMatching(pattern) as string;

it.each([
  [
    "licensed",
    {},
    ["hub-gated", "restricted", "licence at http.*/some/licensed, then set HF_TOKEN"],
  ],
  ["licensed", { token: "hf_x" }, ["hub-gated", "restricted", "with the account of this token"]],
  ["expired", { token: "hf_x" }, ["hub-private", "Invalid credentials", "valid token"]],
  ["unreleased@v9", {}, ["hub-not-found", "revision v9", "branches and tags"]],
  ["page", {}, ["hub-unreachable", "Expected JSON", "HF_ENDPOINT"]],
  ["silent", {}, ["hub-unreachable", "nothing came for 0.2 s", "connection"]],
  ["stalls", {}, ["hub-download", "broke after 1 .nothing came for 0.2 s", "goes on where it stopped"]], // prettier-ignore
  ["altered", {}, ["hub-download", "another hash", "anew"]],
] as const)("some/%s with %o is explained: %s", async (id, more, [code, message, hint]) => {
  const error = { code, message: text(message), hint: text(hint) };
  await expect(fetched(`some/${id}`, more)).rejects.toMatchObject(error);
});

it("takes an address with a slash at its end, and tokens of other hubs than Hugging Face's", async () => {
  const place = await fetched("some/plain", { hubUrl: `${address()}/`, token: "mirror-token" });
  expect(await readdir(place)).toEqual(["config.json", "model.safetensors"]);
});

it("uses the token of the environment, or the one that a login left", async () => {
  vi.stubEnv("XDG_CACHE_HOME", folder);
  vi.stubEnv("HF_HOME", undefined);
  vi.stubEnv("HF_TOKEN_PATH", undefined);
  vi.stubEnv("HF_TOKEN", undefined);
  expect(await hubToken()).toBeUndefined();
  vi.stubEnv("HF_HOME", folder);
  await writeFile(join(folder, "token"), "saved\n");
  expect(await hubToken()).toBe("saved");
  vi.stubEnv("HF_TOKEN", "");
  expect(await hubToken()).toBe("saved");
  vi.stubEnv("HF_TOKEN", "given");
  expect(await hubToken()).toBe("given");
  await rm(join(folder, "token"));
});

it("is offline when either of the two variables says so", () => {
  expect(isOffline()).toBe(false);
  vi.stubEnv("TRANSFORMERS_OFFLINE", "1");
  expect(isOffline()).toBe(true);
  vi.stubEnv("TRANSFORMERS_OFFLINE", "0");
  vi.stubEnv("HF_HUB_OFFLINE", "yes");
  expect(isOffline()).toBe(true);
});
