import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { lorikeet } from "./support/command.ts";

const SHA = "0123456789abcdef0123456789abcdef01234567";
const content = Buffer.alloc(1024, " ");
const file = (path: string): object => ({ type: "file", path, size: content.length, oid: path });
const tree = ["config.json", "model.safetensors", "adapter_model.safetensors"].map(file);
const info = { _id: "1", id: "a/b", sha: SHA, lastModified: "2026-01-01", likes: 0, downloads: 0, private: false, gated: false }; // prettier-ignore
let server: Server;
let folder: string;

beforeEach(async () => {
  server = createServer(({ url = "" }, response) => {
    const isApi = url.startsWith("/api/models/");
    if (isApi) response.setHeader("Content-Type", "application/json");
    response.end(isApi ? JSON.stringify(url.includes("/tree/") ? tree : info) : content);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  folder = await mkdtemp(join(tmpdir(), "lorikeet-progress-"));
  vi.stubEnv("HF_ENDPOINT", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  vi.stubEnv("HF_HUB_CACHE", join(folder, "hub"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  server.close();
  await rm(folder, { recursive: true });
});

test.each([
  ["inspect", "some/model"],
  ["convert", "some/model", "--to", "gguf", "-o", "unused"],
  ["unmerge", "--model", "some/model", "--adapter", "some/adapter", "-o", "unused"],
])("lorikeet %s %s tells what it downloads", async (...argv) => {
  const { code, err } = await lorikeet(...argv);
  expect(err).toContain("model.safetensors  1 KiB of 1 KiB  100 %");
  expect(err).toContain("error[");
  expect(code).not.toBe(0);
});
