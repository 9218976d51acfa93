/** @file What the CUDA engine plans for a training step of each kind of model; needs no GPU and no CUDA library. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { lora } from "../src/adapter/lora-config.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import type { Unit } from "../src/backends/cuda/plan/value.ts";
import { decodeGraph as decodeImage, pipelineLayers } from "../src/diffusion/pipeline-graphs.ts";
import type { HfConfig } from "../src/models/config.ts";
import { loraTargets } from "../src/models/lora-targets.ts";
import { loraCandidates } from "../src/passes/lora.ts";
import { imageTrainingGraph } from "../src/train/image-plan.ts";
import { decodeGraph, trainingGraph, type TrainPlan } from "../src/train/plan.ts";
import { isEncoder, plainLogits } from "../src/train/text-model.ts";
import { planned } from "./support/cuda-planner.ts";
import { causalFixtures } from "./support/fixtures.ts";
import { planOf } from "./support/plan.ts";

const fixtures = join(import.meta.dirname, "fixtures");
const read = async (path: string): Promise<HfConfig> =>
  JSON.parse(await readFile(join(fixtures, path, "config.json"), "utf8")) as HfConfig;

/** Expects that what units read in the arena was written before, and nothing else has been put there since. */
function expectOrdered(units: readonly Unit[]): void {
  const writer = new Map<number, object>();
  for (const { name, reads, writes } of units) {
    for (const { region } of reads)
      if (region.isPlanned) expect(writer.get(region.address), name).toBe(region);
    for (const { region } of writes) if (region.isPlanned) writer.set(region.address, region);
  }
}

const variants = /-(bf16|f16|rope3|window|longrope|serial|350m)$|^(smollm2|mistral)/;
const families = [...causalFixtures, "bert", "modernbert"].filter((name) => !variants.test(name));

it.each(families)("%s: LoRA, all weights, and decoding in f32", async (name) => {
  const config = { ...(await read(`models/${name}`)), num_hidden_layers: 1, n_layer: 1 };
  const [batch, length, isText] = [2, 16, isEncoder(config)];
  const shape = { batch, length, rows: isText ? batch : 20, hasSegments: !isText };
  expectOrdered(planned(trainingGraph(planOf(config), shape)).units);
  const whole = planOf(config, { sites: new Map(), trainsWeight: () => true });
  expectOrdered(planned(trainingGraph(whole, shape)).units);
  if (isText) return;
  const decode = decodeGraph(planOf(config), { batch, length: 1, cacheLength: 16 });
  expectOrdered(planned(decode, { precision: "f32" }).units);
});

it("an adapter of an embedding whose gradient is one product (OPT 350M)", async () => {
  const config = await read("models/opt-350m");
  const layers = loraCandidates([plainLogits(config, { batch: 1, length: 8 })]);
  const adapter = lora({ r: 4, targetModules: ["embed_tokens"] });
  const sites = resolveTargets(adapter, layers, loraTargets("opt"));
  const plan: TrainPlan = { config, sites, trainsWeight: () => false, checkpointing: false };
  const shape = { batch: 2, length: 16, rows: 20, hasSegments: true };
  expectOrdered(planned(trainingGraph(plan, shape)).units);
});

it("Stable Diffusion: the UNet and its text encoder with adapters on every linear layer, the VAE", async () => {
  const [unet, vae, text] = await Promise.all(
    ["unet", "vae", "text_encoder"].map((part) => read(`diffusion/sd1/${part}`)),
  );
  const configs = { unet: unet!, vae: vae!, textEncoders: [text!] };
  const layers = pipelineLayers(configs).filter(({ kind }) => kind === "linear");
  const config = lora({ r: 4, targetModules: layers.map(({ module }) => module) });
  const sites = resolveTargets(config, layers, { defaults: [], head: "" });
  const shape = { batch: 2, height: 16, width: 16, length: 9 };
  expectOrdered(planned(imageTrainingGraph({ configs, sites, checkpointing: false }, shape)).units);
  expectOrdered(planned(decodeImage(configs, { batch: 1, height: 8, width: 8 })).units);
});
