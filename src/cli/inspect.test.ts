import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { AdapterInspection, ModelInspection } from "../api/inspection.ts";
import { loadAdapterFolder, saveAdapter } from "../host/adapter-files.ts";
import { lorikeet } from "../../test/support/command.ts";

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "lorikeet-inspect-"));
});
afterAll(() => rm(scratch, { recursive: true }));

const ADAPTER = "test/golden/patterns/adapter";

test("a model: parameters and the layers that LoRA can be attached to", async () => {
  const { code, out } = await lorikeet("inspect", "storyteller-6m", "--json");
  expect(code).toBe(0);
  const model = JSON.parse(out) as ModelInspection;
  expect(model).toMatchObject({ kind: "model", family: "llama", context: 1024, vocabulary: 6144 });
  expect(model.parameters).toBe(5_999_872);
  expect(model.layers).toContainEqual({
    module: "model.layers.*.self_attn.k_proj",
    count: 6,
    inFeatures: 256,
    outFeatures: 128,
  });
  expect((await lorikeet("inspect", "storyteller-6m")).out).toContain("5,999,872 parameters");
});

test("--weights lists every tensor", async () => {
  const { out } = await lorikeet("inspect", "storyteller-6m", "--weights");
  expect(out.trimEnd().split("\n")).toHaveLength(56);
  expect(out).toContain("model.norm.weight  bf16 [256]\n");
});

test("an adapter: ranks and scales of each kind of layer, and its fit to a base", async () => {
  const flags = ["inspect", ADAPTER, "--model", "storyteller-6m"];
  const { code, out } = await lorikeet(...flags, "--json");
  expect(code).toBe(0);
  const adapter = JSON.parse(out) as AdapterInspection;
  const modules = adapter.layers.reduce((sum, { count }) => sum + count, 0);
  expect(adapter).toMatchObject({ kind: "adapter", fit: { matched: modules, unmatched: [] } });
  expect(new Set(adapter.layers.flatMap(({ ranks }) => ranks)).size).toBeGreaterThan(1);
  expect((await lorikeet(...flags)).out).toContain(`${modules} of ${modules} modules match`);
});

test("an adapter: what the base lacks, has in other sizes, or would miss", async () => {
  const flags = ["inspect", ADAPTER, "--model", "test/fixtures/models/qwen2"];
  const { fit } = JSON.parse((await lorikeet(...flags, "--json")).out) as AdapterInspection;
  expect(fit).toMatchObject({ matched: 0 });
  expect(fit!.unmatched).toContainEqual({ module: "model.layers.5.mlp.down_proj", nearest: ["model.layers.0.mlp.down_proj"] }); // prettier-ignore
  expect(fit!.misfits).toContainEqual({ module: "model.layers.0.self_attn.v_proj", expected: "[16, 32]", got: "[128, 256]" }); // prettier-ignore
  const { out } = await lorikeet(...flags);
  expect(out).toContain("0 of 18 modules match");
  expect(out).toContain("… and 1 more like it");
  const folder = join(scratch, "fewer");
  const { config, tensors } = await loadAdapterFolder(ADAPTER);
  const few = [...tensors].filter(([key]) => !key.includes("layers.2"));
  await saveAdapter({ config, tensors: new Map(few) }, folder);
  const fewer = await lorikeet("inspect", folder, "--model", "storyteller-6m", "--json");
  expect((JSON.parse(fewer.out) as AdapterInspection).fit!.missed).toEqual(["model.layers.2.self_attn.q_proj", "model.layers.2.self_attn.v_proj", "model.layers.2.mlp.down_proj"]); // prettier-ignore
});

describe("every format of adapters", () => {
  const lora = "test/fixtures/diffusion/lora/sd1-everything";
  const cases: [string, string, string, string][] = [
    ["peft", ADAPTER, "storyteller-6m", "LoRA (peft), r 8, alpha 16: 74,496 parameters"],
    ["peft, a PyTorch file", "test/fixtures/adapters/adapter-bin-bf16/adapter", "test/fixtures/models/llama-bf16", "LoRA (peft)"], // prettier-ignore
    ["peft, under another name", "test/fixtures/adapters/adapter-name-save/adapter", "test/fixtures/models/llama-rope3", "LoRA, DoRA (peft), r 4"], // prettier-ignore
    ["gguf", "a.gguf", "storyteller-6m", "LoRA (gguf), r 8, alpha 16: 74,496 parameters"],
    ["mlx-lm", "mlx", "storyteller-6m", "LoRA (mlx-lm)"],
    ["diffusers", `${lora}/pytorch_lora_weights.safetensors`, "test/fixtures/diffusion/sd1", "LoRA (diffusers), r 3, alpha 6: 18,816 parameters"], // prettier-ignore
    ["kohya", `${lora}/kohya.safetensors`, "test/fixtures/diffusion/sd1", "LoRA (kohya), r 3, alpha 6: 18,816 parameters"], // prettier-ignore
  ];
  beforeAll(async () => {
    await lorikeet("convert", ADAPTER, "--to", "gguf", "-o", join(scratch, "a.gguf"));
    await lorikeet("convert", ADAPTER, "--to", "mlx", "-o", join(scratch, "mlx"));
  });

  test.each(cases)("%s: modules, ranks, sizes, and all of it fits its base", async (_, path, base, head) => {
    const at = path.includes("/") ? path : join(scratch, path);
    const { code, out, err } = await lorikeet("inspect", at, "--model", base);
    expect(code, err).toBe(0);
    expect(out).toContain(head);
    const [, matched, all] = /: (\d+) of (\d+) modules match/.exec(out)!;
    expect(Number(matched)).toBeGreaterThan(0);
    expect(matched).toBe(all);
    expect(out).toMatch(/trainable [\d,]+ of [\d,]+ parameters, \d+\.\d\d %/);
    expect(out).not.toContain(", 0 B on disk");
  }); // prettier-ignore
});

test("models: shards, quantized GGUF with its stored types, image pipelines", async () => {
  const shards = await lorikeet("inspect", "test/fixtures/models/llama-sharded", "--json");
  expect(JSON.parse(shards.out)).toMatchObject({ kind: "model", family: "llama" });
  const q8 = join(scratch, "q8");
  await lorikeet("convert", "storyteller-6m", "--to", "gguf", "--dtype", "q8_0", "-o", q8);
  const gguf = await lorikeet("inspect", join(q8, "storyteller-6m.Q8_0.gguf"));
  expect(gguf.out).toContain("llama, 5,999,872 parameters (Q8_0, F32)");
  const pipeline = await lorikeet("inspect", "test/fixtures/diffusion/sd1");
  expect(pipeline.out).toContain("Stable Diffusion");
  expect(pipeline.out).toContain("unet.");
});

test("a file of a model or an adapter stands for its folder; of another one it is said what to give", async () => {
  const kindOf = async (path: string): Promise<string> =>
    (JSON.parse((await lorikeet("inspect", path, "--json")).out) as { kind: string }).kind;
  for (const file of ["config.json", "model.safetensors", "tokenizer.json"])
    expect(await kindOf(`models/storyteller-6m/${file}`)).toBe("model");
  expect(await kindOf(`${ADAPTER}/adapter_config.json`)).toBe("adapter");
  const pipeline = await lorikeet("inspect", "test/fixtures/diffusion/sd1/model_index.json");
  expect(pipeline.out).toContain("Stable Diffusion");
  const { code, err } = await lorikeet("inspect", "package.json");
  expect(code).toBe(1);
  expect(err).toContain("got the file package.json");
  expect(err).toContain("A model is a folder with config.json and weights");
  const generate = await lorikeet("generate", "-m", "models/storyteller-6m/config.json", "-p", "a");
  expect(generate.err).toContain("hint: Give the folder that it belongs to: models/storyteller-6m");
});

test("nothing there is an error with a hint", async () => {
  const { code, err } = await lorikeet("inspect", "no-such-model");
  expect(code).toBe(1);
  expect(err).toContain("error[file-not-found]");
});
