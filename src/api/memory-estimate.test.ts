import { describe, expect, it } from "vitest";
import { lora } from "../adapter/lora-config.ts";
import { resolveTargets } from "../adapter/targets.ts";
import { LorikeetError } from "../errors.ts";
import { topological } from "../ir/graph.ts";
import { causalLM } from "../models/registry.ts";
import { isFrozen } from "../ops/leaf.ts";
import { loraCandidates } from "../passes/lora.ts";
import { tensor } from "../tensor/tensor.ts";
import { IMAGE_TARGETS } from "../train/image-plan.ts";
import type { TrainPlan } from "../train/plan.ts";
import { loadPipeline } from "./image-pipeline.ts";
import {
  checkMemory,
  estimateImageMemory,
  estimateMemory,
  type MemoryEstimate,
} from "./memory-estimate.ts";

const SMOLLM2 = {
  model_type: "llama",
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  vocab_size: 49152,
  rms_norm_eps: 1e-5,
  rope_theta: 100000,
  tie_word_embeddings: true,
};

function planFor(blocks: number, checkpointing: boolean, shapes: object = SMOLLM2): TrainPlan {
  const config = { ...shapes, num_hidden_layers: blocks };
  const model = causalLM(config, { batch: 1, length: 1 });
  const candidates = loraCandidates([model.head(model.hidden)]);
  const sites = resolveTargets(lora({ r: 16, targetModules: "all-linear" }), candidates, {
    defaults: [],
    head: "lm_head",
  });
  return { config, sites, trainsWeight: () => false, checkpointing };
}

/** A plan for the shapes of Llama-3.2-1B, as `SMOLLM2` is of SmolLM2-135M. */
const LLAMA_1B = {
  ...SMOLLM2,
  ...{ hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: 16, vocab_size: 128256 },
  ...{ num_attention_heads: 32, num_key_value_heads: 8 },
};

const weight = tensor("f32", [1000], new Float32Array(1000));
const source = {
  names: ["w"],
  get: () => ({ ...weight, bytes: { kind: "memory" as const, tensor: weight } }),
};
const shape = { batch: 1, length: 512, rows: 256, hasSegments: false };
const estimate = (blocks: number, checkpointing = false, batch = 1): MemoryEstimate =>
  estimateMemory(planFor(blocks, checkpointing), { source, dtype: "f32" }, { ...shape, batch });

describe("estimateMemory", () => {
  it("counts weights, and four f32 copies of what trains", () => {
    const { weights, adapters } = estimate(2);
    const perBlock = 16 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536));
    expect([weights, adapters]).toEqual([4000, 4 * 4 * 2 * perBlock]);
  });

  it("grows linearly with blocks and rows of the batch", () => {
    const [a, b, c] = [3, 6, 9].map((blocks) => estimate(blocks).activations) as [
      number,
      number,
      number,
    ];
    expect(c - b).toBeCloseTo(b - a, 0);
    const twice = estimate(6, false, 2).activations - estimate(3, false, 2).activations;
    expect(twice / (b - a)).toBeCloseTo(2, 5);
  });

  it("grows several times slower with blocks under checkpointing", () => {
    const growth = (checkpointing: boolean): number =>
      estimate(30, checkpointing).activations - estimate(15, checkpointing).activations;
    expect(growth(true)).toBeLessThan(0.25 * growth(false));
    expect(estimate(30, true).activations).toBeLessThan(estimate(30).activations);
  });
});

describe("estimateMemory and the peaks that were measured (bench/results/train-step.md)", () => {
  it.each([
    { shapes: SMOLLM2, batch: 1, length: 512, checkpointing: false, measured: 1.65 },
    { shapes: SMOLLM2, batch: 4, length: 256, checkpointing: false, measured: 2.06 },
    { shapes: SMOLLM2, batch: 1, length: 512, checkpointing: true, measured: 1.17 },
    { shapes: SMOLLM2, batch: 4, length: 256, checkpointing: true, measured: 1.19 },
    { shapes: LLAMA_1B, batch: 1, length: 512, checkpointing: true, measured: 5.83 },
  ])("within a tenth of $measured GB", ({ shapes, batch, length, checkpointing, measured }) => {
    const plan = planFor(shapes.num_hidden_layers, checkpointing, shapes);
    const { head, hidden } = causalLM(plan.config, { batch: 1, length: 1 });
    const weights = new Map(topological([head(hidden)]).filter(isFrozen).map((node) => [node.name!, node])); // prettier-ignore
    const base = { names: [...weights.keys()], get: (name: string) => ({ ...source.get(), shape: weights.get(name)!.shape }) }; // prettier-ignore
    const sizes = { batch, length, rows: batch * length, hasSegments: false };
    const { total } = estimateMemory(plan, { source: base, dtype: "f32" }, sizes);
    expect(Math.abs(total / 1e9 / measured - 1)).toBeLessThan(0.1);
  });
});

describe("estimateImageMemory", () => {
  const images = async (batch: number, checkpointing = false): Promise<number> => {
    const { checkpoint, layers } = await loadPipeline("picturebook-7m");
    const known = { defaults: IMAGE_TARGETS, head: "" };
    const unet = layers.filter(({ module }) => module.startsWith("unet."));
    const sites = resolveTargets(lora({ targetModules: [...IMAGE_TARGETS] }), unet, known);
    const plan = { configs: checkpoint.configs, sites, checkpointing };
    const base = { source: checkpoint.weights, dtype: "auto" as const };
    const sizes = { batch, height: 16, width: 16, length: 32 };
    return estimateImageMemory(plan, base, sizes).activations;
  };

  it("grows linearly with the batch, by what was measured", async () => {
    const [one, two, checkpointed] = [await images(1), await images(2), await images(1, true)];
    expect(two / one).toBeCloseTo(2, 1);
    // the peak of a process rises by 22 MB for each further image of a batch
    expect(one).toBeGreaterThan(0.8 * 22e6);
    expect(one).toBeLessThan(1.2 * 22e6);
    expect(checkpointed).toBeLessThan(0.5 * one);
  });
});

describe("checkMemory", () => {
  const needs: MemoryEstimate = { weights: 1e9, adapters: 1e8, activations: 4e9, total: 5.3e9 };
  const big = { batch: 8, row: "512 tokens", option: "--max-length" };

  it("says nothing where there is room, warns where it is close", () => {
    expect(checkMemory(needs, 8e9, big)).toEqual([]);
    expect(checkMemory(needs, 5e9, big)).toEqual([
      {
        code: "memory-tight",
        message:
          "training may need 5.3 GB (weights 1.0 GB, adapter and optimizer 100 MB, activations of 8 × 512 tokens 4.0 GB); 5.0 GB is free",
      },
    ]);
  });

  it("refuses what is clearly more than is free, unless it is told to start", () => {
    const free = 24.5e9;
    const [close, far] = [26e9, 36e9].map((total) => ({ ...needs, total }));
    expect(checkMemory(close!, free, big)).toMatchObject([{ code: "memory-tight" }]);
    expect(() => checkMemory(far!, free, big)).toThrow("fits into 24.5 GB of free memory");
    const told = checkMemory(far!, free, { ...big, mayExceed: true });
    expect(told).toMatchObject([{ code: "memory-tight" }]);
  });

  it("says what to change", () => {
    const refused = (free: number): unknown => {
      try {
        return checkMemory(needs, free, big);
      } catch (error) {
        return error;
      }
    };
    expect(refused(3e9)).toBeInstanceOf(LorikeetError);
    expect(refused(3e9)).toMatchObject({
      code: "out-of-memory",
      hint: expect.stringContaining("--per-device-train-batch-size 3 ") as string,
    });
    expect(refused(0.5e9)).toMatchObject({
      hint: expect.stringContaining("smaller model") as string,
    });
  });
});
