import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { peftKey } from "../src/adapter/adapter.ts";
import { parametersOf } from "../src/adapter/attach.ts";
import { lossFeeds } from "../src/api/feeds.ts";
import { createModel } from "../src/api/model.ts";
import type { AdamWStep } from "../src/backends/backend.ts";
import { loadAdapterFolder } from "../src/host/adapter-files.ts";
import { openFolder } from "../src/host/open-checkpoint.ts";
import type { Node } from "../src/ir/node.ts";
import { convert, toFloat64 } from "../src/tensor/convert.ts";
import { tensor } from "../src/tensor/tensor.ts";
import { isHeldByLoraFa, loraFa } from "../src/train/lora-fa.ts";
import { loraPlusScales, withoutDecay } from "../src/train/lora-plus.ts";
import type { Apply } from "../src/train/optimizer.ts";
import {
  stepShape,
  trainableParameters,
  trainingGraph,
  type TrainPlan,
} from "../src/train/plan.ts";

const fixtures = join(import.meta.dirname, "fixtures");
interface Facts {
  readonly losses: number[];
  readonly input_ids: number[][];
  readonly learning_rate: number;
  readonly weight_decay: number;
  readonly eps: number;
  readonly ratio?: number;
  readonly embedding_rate?: number;
}

interface Chosen {
  readonly apply: Apply;
  readonly scales?: Record<string, number>;
  readonly isHeld?: (name: string) => boolean;
}

/** Trains PEFT's `start` as PEFT did and compares losses, and the adapter after it. */
async function retrace(
  name: string,
  choose: (facts: Facts, parameters: readonly Node[], plan: TrainPlan) => Chosen,
): Promise<{ lossError: number; errors: Map<string, number> }> {
  const folder = join(fixtures, "optimizers", name);
  const facts = JSON.parse(await readFile(join(folder, "facts.json"), "utf8")) as Facts;
  const base = createModel(await openFolder(join(fixtures, "models/llama-rope3")));
  const model = base.withAdapter(await loadAdapterFolder(join(folder, "start")));
  const parameters = trainableParameters(model.plan);
  const { apply, scales, isHeld } = choose(facts, parameters, model.plan);
  const engine = await model.openEngine();
  const feeds = lossFeeds(facts.input_ids, facts.input_ids);
  const plan = { ...model.plan, ...(isHeld && { isHeld }) };
  const program = await engine.compile(trainingGraph(plan, { ...stepShape(feeds), hasSegments: false })); // prettier-ignore
  let lossError = 0;
  for (const [i, loss] of facts.losses.entries()) {
    const got = await program.run(feeds);
    lossError = Math.max(lossError, Math.abs(Number(got["loss"]!.data[0]) - loss));
    const update: AdamWStep = {
      ...{ step: i + 1, learningRate: facts.learning_rate, betas: [0.9, 0.999], eps: facts.eps },
      ...{ weightDecay: facts.weight_decay, maxGradNorm: Infinity },
      ...(scales && { learningRateScales: scales }),
    };
    await apply(engine, update);
  }
  const after = await loadAdapterFolder(join(folder, "after"));
  const errors = new Map<string, number>();
  for (const [key, parameter] of parametersOf(after, model.layers, model.family)) {
    const want = toFloat64(after.tensors.get(key)!);
    const got = toFloat64(convert(await engine.get(parameter), "f32"));
    errors.set(key, Math.hypot(...want.map((x, j) => x - got[j]!)) / Math.hypot(...want));
  }
  await engine.dispose();
  return { lossError, errors };
}

describe("five steps of PEFT's optimizers, float32", () => {
  it("LoRA+: rates of A, B, embeddings, biases and norms, and what decays", async () => {
    const { lossError, errors } = await retrace("loraplus", (facts, parameters) => ({
      apply: withoutDecay(parameters),
      scales: loraPlusScales(parameters, {
        ratio: facts.ratio!,
        embeddingRate: facts.embedding_rate!,
        learningRate: facts.learning_rate,
      }),
    }));
    expect(lossError).toBeLessThan(1e-5);
    // attention does not see a key's bias: its gradient is zero but for rounding, of which Adam makes whole steps
    for (const [key, error] of errors)
      if (!key.includes("k_proj.bias")) expect(error, key).toBeLessThan(1e-4);
    expect(errors.size).toBeGreaterThan(40);
  });

  it("LoRA-FA: A keeps every bit, B takes the projected step", async () => {
    const { lossError, errors } = await retrace("lorafa", (_, parameters, plan) => ({
      apply: loraFa(parameters, plan.sites, peftKey),
      isHeld: isHeldByLoraFa,
    }));
    expect(lossError).toBeLessThan(1e-5);
    for (const [key, error] of errors)
      expect(error, key).toBeLessThan(key.includes("lora_A") ? 1e-30 : 1e-4);
  });

  it("LoRA-FA clips gradients before they are projected", async () => {
    const parameters = [
      { name: peftKey("m", "lora_A.weight"), shape: [1, 2] },
      { name: peftKey("m", "lora_B.weight"), shape: [2, 1] },
    ] as unknown as Node[];
    const site = { module: "m", rank: 1, scale: 2, dropout: 0, useDora: false, loraBias: false };
    const state = new Map([
      [parameters[0]!.name!, tensor("f32", [1, 2], Float32Array.of(3, 4))],
      [`${parameters[1]!.name!}.grad`, tensor("f32", [2, 1], Float32Array.of(6, 8))],
    ]);
    let seen: AdamWStep | undefined;
    const engine = {
      get: (name: string) => Promise.resolve(state.get(name)!),
      set: (name: string, value: never) => Promise.resolve(void state.set(name, value)),
      applyGradients: (update: AdamWStep) => Promise.resolve(((seen = update), { gradNorm: 0 })),
    };
    const update = { step: 1, learningRate: 1, betas: [0.9, 0.999] as const, eps: 1e-6, weightDecay: 0, maxGradNorm: 5 }; // prettier-ignore
    const { gradNorm } = await loraFa(parameters, new Map([["m", site]]), peftKey)(engine as never, update); // prettier-ignore
    expect(gradNorm).toBe(10);
    // half of (6, 8), over scale² = 4 and A·Aᵀ = 25
    const [first, second] = state.get(`${parameters[1]!.name!}.grad`)!.data;
    expect(Number(first)).toBeCloseTo(0.03, 6);
    expect(Number(second)).toBeCloseTo(0.04, 6);
    expect(seen!.maxGradNorm).toBe(Infinity);
    expect(seen!.eps).toBeCloseTo(1e-6 / Math.sqrt(0.001), 12);
  });
});
