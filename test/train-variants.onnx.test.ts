import { mkdtemp, readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { lora } from "../src/adapter/lora-config.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import { loadModel } from "../src/api/load-model.ts";
import { loadAdapterFolder } from "../src/host/adapter-files.ts";
import type { LoraCandidate } from "../src/passes/lora.ts";
import { lorikeet } from "./support/command.ts";

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "lorikeet-variants-"));
});

async function run(name: string, ...flags: string[]): Promise<string> {
  const folder = join(scratch, name);
  const shared = ["--data", "examples/lorikeet-chat.heldout.jsonl", "-o", folder, "--no-report", "--threads", "1", "--per-device-train-batch-size", "2", "--max-length", "64", "--r", "4"]; // prettier-ignore
  const { code, err } = await lorikeet("train", ...shared, ...flags);
  expect(code, err).toBe(0);
  return folder;
}

const bytesOf = (folder: string): Promise<Buffer> =>
  readFile(join(folder, "adapter_model.safetensors"));

it.each([
  ["pissa", ["--init-lora-weights", "pissa", "--target-modules", "1.self_attn.k_proj"]],
  [
    "eva",
    [
      "--init-lora-weights",
      "eva",
      "--target-modules",
      "0.self_attn.q_proj,5.self_attn.q_proj",
      "--r",
      "2",
    ],
  ],
  ["lorafa", ["--optim", "lorafa", "--bias", "lora_only"]],
  ["loraplus", ["--loraplus-lr-ratio", "16", "--trainable-token-indices", "[5, 9]"]],
])(
  "%s: a run that is resumed gives the bytes of one that was not",
  async (name, flags) => {
    const constant = ["--lr-scheduler-type", "constant", ...flags];
    const whole = await run(`${name}-whole`, "--max-steps", "2", ...constant);
    await run(`${name}-half`, "--max-steps", "1", ...constant);
    const half = await run(`${name}-half`, "--max-steps", "2", "--resume", ...constant);
    expect((await bytesOf(whole)).equals(await bytesOf(half))).toBe(true);
  },
  120_000,
);

it("--optim lorafa leaves A as it began", async () => {
  const [one, two] = [await run("fa-1", "--max-steps", "1", "--optim", "lorafa"), await run("fa-2", "--max-steps", "2", "--optim", "lorafa")]; // prettier-ignore
  const [a, b] = [await loadAdapterFolder(one), await loadAdapterFolder(two)];
  for (const [key, { data }] of a.tensors)
    if (key.includes("lora_A")) expect(b.tensors.get(key)!.data).toEqual(data);
  expect([...a.tensors].some(([key, { data }]) => key.includes("lora_B") && data.some((x) => Number(x) !== 0))).toBe(true); // prettier-ignore
}, 60_000);

it("--save-as-lora gives the logits of the adapter that it stands for", async () => {
  const flags = ["--init-lora-weights", "olora", "--max-steps", "2"];
  const [own, plain] = [await run("olora", ...flags), await run("olora-plain", ...flags, "--save-as-lora")]; // prettier-ignore
  const base = await loadModel("storyteller-6m", { threads: 1 });
  const [a, b] = [await loadAdapterFolder(own), await loadAdapterFolder(plain)];
  expect([b.config.init, b.config.r]).toEqual([true, 8]);
  const [one, two] = [base.withAdapter(a), base.withAdapter(b)];
  const ids = [base.tokenizer.encode("Once upon a time there was")];
  const [x, y] = [(await one.logits(ids)).data, (await two.logits(ids)).data];
  let most = 0;
  for (let i = 0; i < x.length; i++) most = Math.max(most, Math.abs(Number(x[i]) - Number(y[i])));
  expect(most).toBeLessThan(1e-3);
  for (const model of [one, two, base]) await model.dispose();
}, 60_000);

it("--full trains every weight and writes a model that opens and generates", async () => {
  const folder = await run("full", "--full", "--max-steps", "2", "--learning-rate", "1e-2");
  expect(await readdir(folder)).not.toContain("adapter_config.json");
  const [base, model] = [await loadModel("storyteller-6m"), await loadModel(join(folder, "model"))];
  let changed = 0;
  for (const name of base.weights.names) {
    const [before, after] = [await base.weights.read(name), await model.weights.read(name)];
    expect(after.dtype).toBe(before.dtype);
    if (after.data.some((value, i) => value !== before.data[i])) changed++;
  }
  expect(changed).toBeGreaterThan(0.9 * base.weights.names.length);
  const said = await lorikeet("generate", "-m", join(folder, "model"), "--prompt", "Once", "--max-new-tokens", "2"); // prettier-ignore
  expect(said.code).toBe(0);
}, 60_000);

it("layers_to_transform takes the first number of a name, as PEFT's expressions do", () => {
  const names = ["model.layers.0.mlp.experts.1.up", "model.layers.1.mlp.experts.0.up", "layers.1.up", "head.up"]; // prettier-ignore
  const candidates = names.map((module): LoraCandidate => ({ module, kind: "linear", inFeatures: 4, outFeatures: 4, kernel: [], groups: 1, fanInFanOut: false, weight: `${module}.weight` })); // prettier-ignore
  const chosen = (config: Parameters<typeof lora>[0]): string[] => [
    ...resolveTargets(lora({ targetModules: ["up"], ...config }), candidates, { defaults: [], head: "" }).keys(), // prettier-ignore
  ];
  expect(chosen({ layersToTransform: [1] })).toEqual([names[1]]);
  expect(chosen({ layersToTransform: [1], layersPattern: ["layers"] })).toEqual([names[1], names[2]]); // prettier-ignore
  expect(chosen({ layersToTransform: [1], layersPattern: ["experts"] })).toEqual([names[0]]);
  expect(chosen({ layersToTransform: [0], targetModules: ["up", "head.up"] })).toEqual([names[0], names[3]]); // prettier-ignore
});
