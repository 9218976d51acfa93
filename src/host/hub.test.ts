import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ADAPTER } from "./hub-files.ts";
import { fetchAdapter, fetchModel, fetchPipeline, isHubId } from "./hub.ts";

const SHA = "0123456789abcdef0123456789abcdef01234567";
const weights = Buffer.from(Array.from({ length: 5000 }, (_, i) => i % 251));
const config = Buffer.from('{"model_type":"llama"}');
const oid = createHash("sha256").update(weights).digest("hex");
const tree = [
  { type: "file", path: "config.json", size: config.length, oid: "c0ff" },
  { type: "file", path: "model.safetensors", size: weights.length, oid: "beef", lfs: { oid, size: weights.length, pointerSize: 130 } }, // prettier-ignore
  { type: "file", path: "flax_model.msgpack", size: 1, oid: "f1a5" },
];
/** A merged model that carries its adapter, too. */
const both = [
  ...tree,
  { type: "file", path: "adapter_config.json", size: config.length, oid: "ada9" },
  { type: "file", path: "adapter_model.safetensors", size: config.length, oid: "ada8" },
];
const small = (path: string): object => ({ type: "file", path, size: config.length, oid: path.replaceAll("/", "-") }); // prettier-ignore
/** An image model in all the variants that repositories have, beside what it does not need. */
const needed = [
  "model_index.json",
  "scheduler/scheduler_config.json",
  "text_encoder/config.json",
  "text_encoder/pytorch_model.bin",
  "tokenizer/merges.txt",
  "tokenizer/vocab.json",
  "unet/config.json",
  "unet/diffusion_pytorch_model.safetensors",
  "vae/config.json",
  "vae/diffusion_pytorch_model.fp16.safetensors",
];
const pipeline = [
  ...needed,
  ...["README.md", "v1-5-pruned.safetensors", "safety_checker/model.safetensors"],
  ...["unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors"],
  ...["vae/diffusion_pytorch_model.fp16.bin", "text_encoder/flax_model.msgpack"],
].map(small);
const ranges: (string | undefined)[] = [];
let breaks = 0;
let server: Server;
let hubUrl: string;
let cacheDir: string;

/** Breaks off after 2000 bytes as often as `breaks` says. */
function sendWeights(request: IncomingMessage, response: ServerResponse): void {
  const { range } = request.headers;
  ranges.push(range);
  const from = Number(/bytes=(\d+)-/.exec(range ?? "")?.[1] ?? 0);
  response.writeHead(range === undefined ? 200 : 206, { "Content-Length": weights.length - from });
  if (breaks-- > 0)
    response.write(weights.subarray(from, 2000), () => setTimeout(() => response.destroy(), 50));
  else response.end(weights.subarray(from));
}

beforeAll(async () => {
  server = createServer((request, response) => {
    const [url] = (request.url ?? "").split("?") as [string];
    const refuse = (status: number, error: string): void => {
      response.writeHead(status, { "Content-Type": "application/json" });
      response.end(JSON.stringify({ error }));
    };
    const json = (value: unknown): void => {
      response.writeHead(200, { "Content-Type": "application/json" });
      response.end(JSON.stringify(value));
    };
    const isModel = url.startsWith("/api/models/");
    if (url.includes("gated")) refuse(403, "Access to model is restricted");
    else if (url.includes("private") && request.headers.authorization !== "Bearer t0ken")
      refuse(401, "Invalid username or password.");
    else if (url.includes("absent")) refuse(404, "Repository not found");
    else if (url.includes("/tree/"))
      json(url.includes("pipeline") ? pipeline : url.includes("both") ? both : tree);
    else if (isModel)
      json({ _id: "1", id: "a/b", sha: SHA, lastModified: "2026-01-01", likes: 0, downloads: 0, private: false, gated: false }); // prettier-ignore
    else if (url.includes("walled")) refuse(403, "Access to model is restricted");
    else if (/config\.json$|adapter_model|pipeline/.test(url)) response.end(config);
    else if (url.endsWith(`${SHA}/model.safetensors`)) sendWeights(request, response);
    else refuse(404, "Entry not found");
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  hubUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  cacheDir = await mkdtemp(join(tmpdir(), "lorikeet-hub-"));
});
afterAll(async () => {
  server.close();
  await rm(cacheDir, { recursive: true });
});

describe("fetchAdapter", () => {
  it("fetches the adapter of a repository that holds a model as well", async () => {
    const folder = await fetchAdapter("some/both", { hubUrl, cacheDir });
    expect((await readdir(folder)).sort()).toEqual(["adapter_config.json", "adapter_model.safetensors", "config.json"]); // prettier-ignore
  });

  it.each([
    [["README.md", "pytorch_lora_weights.safetensors", "other.safetensors"], ["pytorch_lora_weights.safetensors"]],
    [["style.safetensors", "README.md", "sample.png"], ["style.safetensors"]],
    [["unet/adapter_config.json", "unet/adapter_model.safetensors"], ["unet/adapter_config.json", "unet/adapter_model.safetensors"]],
    [["adapter_config.json", "adapter_model.safetensors", "checkpoint-5/adapter_model.safetensors"], ["adapter_config.json", "adapter_model.safetensors"]],
    [["a.safetensors", "b.safetensors"], undefined],
    [["model_index.json", "v1-5.safetensors"], undefined],
  ])("chooses of %j", (paths, chosen) => {
    expect(ADAPTER.choose(paths)).toEqual(chosen);
  }); // prettier-ignore

  it("says where a model goes when there is no adapter", async () => {
    const fetched = fetchAdapter("some/plain", { hubUrl, cacheDir });
    await expect(fetched).rejects.toMatchObject({ code: "missing-weights", hint: expect.stringContaining("--model") as string }); // prettier-ignore
  });
});

describe("fetchPipeline", () => {
  it("fetches the parts of an image model, each in one variant, and finds them offline", async () => {
    const folder = await fetchPipeline("some/pipeline", { hubUrl, cacheDir });
    const found = await readdir(folder, { recursive: true });
    expect(found.filter((name) => name.includes(".")).sort()).toEqual(needed);
    expect(await readFile(join(folder, "unet/config.json"))).toEqual(config);
    expect(await fetchPipeline("some/pipeline", { cacheDir, offline: true })).toBe(folder);
  });

  it("says so where there is none", async () => {
    const fetched = fetchPipeline("some/model", { hubUrl, cacheDir });
    await expect(fetched).rejects.toMatchObject({ code: "missing-weights", hint: expect.stringContaining("single file") as string }); // prettier-ignore
  });
});

describe("fetchModel", () => {
  it("goes on where a download broke off, fetches only what is needed, and works offline then", async () => {
    breaks = 1;
    const options = { hubUrl, cacheDir };
    await expect(fetchModel("some/model", options)).rejects.toMatchObject({ code: "hub-download" });
    let last = 0;
    const folder = await fetchModel("some/model", { ...options, onProgress: ({ have }) => (last = have) }); // prettier-ignore
    expect(ranges).toEqual([undefined, "bytes=2000-"]);
    expect(last).toBe(weights.length);
    expect(folder).toBe(join(cacheDir, "models--some--model/snapshots", SHA));
    expect(await readFile(join(folder, "model.safetensors"))).toEqual(weights);
    expect(await stat(join(folder, "flax_model.msgpack")).catch(() => undefined)).toBeUndefined();
    expect(await fetchModel("some/model", { cacheDir, offline: true })).toBe(folder);
    const reference = join(cacheDir, "models--some--model/refs/main");
    const written = (await stat(reference)).mtimeMs;
    expect(await fetchModel("some/model", options)).toBe(folder);
    expect(ranges).toHaveLength(2);
    expect((await stat(reference)).mtimeMs).toBe(written); // so that a read-only cache will do
  });

  it("explains what it cannot fetch", async () => {
    const code = (id: string, more = {}): Promise<unknown> =>
      fetchModel(id, { hubUrl, cacheDir, ...more }).catch(
        (error: unknown) => (error as { code: string }).code,
      );
    expect(await code("some/gated")).toBe("hub-gated");
    expect(await code("some/walled")).toBe("hub-gated"); // its list of files is public
    expect(await code("some/private")).toBe("hub-private");
    expect(await code("some/absent")).toBe("hub-not-found");
    expect(await code("some/other", { offline: true })).toBe("hub-offline");
    expect(await code("some/model", { hubUrl: "http://127.0.0.1:1" })).toBe("hub-unreachable");
    expect(await code("some/private", { token: "t0ken" })).toContain(SHA);
  });

  it("knows a hub id from a path", () => {
    expect(["a/b", "a/b@v1", "./a", "a", "a/b/c", "/a/b"].map(isHubId)).toEqual([true, true, false, false, false, false]); // prettier-ignore
  });
});
