import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { lora } from "../src/adapter/lora-config.ts";
import { loadAdapterFolder, saveAdapter } from "../src/host/adapter-files.ts";
import { lorikeet } from "./support/command.ts";

const GOLDEN = "test/golden/lora/adapter";
let root: string;

beforeAll(async () => (root = await mkdtemp(join(tmpdir(), "lorikeet-base-"))));
afterAll(() => rm(root, { recursive: true, force: true }));

/** The golden adapter, saying that its base is `baseModel`. */
async function adapterOf(baseModel: string): Promise<string> {
  const folder = await mkdtemp(join(root, "adapter-"));
  const { config, tensors } = await loadAdapterFolder(GOLDEN);
  await saveAdapter({ config: lora({ ...config, baseModel }), tensors }, folder);
  return folder;
}

const generate = (...flags: string[]): ReturnType<typeof lorikeet> =>
  lorikeet("generate", "--prompt", "Once", "--max-new-tokens", "2", "--threads", "1", ...flags);

test("commands open the base that the adapter names, unless --model says another", async () => {
  const elsewhere = await adapterOf(join(root, "gone"));
  for (const command of [
    ["generate", "--prompt", "Once"],
    ["merge", "--output", join(root, "merged")],
  ]) {
    const { code, err } = await lorikeet(...command, "--adapter", elsewhere);
    expect([code, err]).toEqual([1, expect.stringContaining(join(root, "gone"))]);
    expect(err).toContain("The adapter names this base");
  }
  expect(await generate("--adapter", elsewhere, "--model", "storyteller-6m")).toEqual(
    await generate("--adapter", await adapterOf("storyteller-6m")),
  );
}, 120_000);

test("an adapter of another model is refused with every tensor that does not fit", async () => {
  const { code, err } = await generate(
    "--adapter",
    GOLDEN,
    "--model",
    "test/fixtures/models/qwen2",
  );
  expect(code).toBe(1);
  expect(err).toContain("error[adapter-mismatch]: ");
  expect(err).toMatch(/lora_A\.weight" is \[\d+, 256\], this model needs \[\d+, 32\]/);
}, 120_000);
