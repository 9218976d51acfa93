/** @file What the CUDA engine plans for a training step of SD 1.5's UNet; needs no GPU. */
import { expect, it } from "vitest";
import { lora } from "../src/adapter/lora-config.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import { pointwise } from "../src/backends/cuda/plan/pointwise.ts";
import { isLeaf, isReduction, isUnfused, planGraph } from "../src/backends/cuda/plan/graph.ts";
import { findLoraGroups } from "../src/backends/cuda/plan/lora.ts";
import { chooseStored } from "../src/backends/cuda/plan/stored.ts";
import { findSums } from "../src/backends/cuda/plan/sums.ts";
import { knownConfigs } from "../src/diffusion/known-configs.ts";
import { pipelineLayers } from "../src/diffusion/pipeline-graphs.ts";
import { leaves } from "../src/ops/leaf.ts";
import { sizeOf } from "../src/tensor/shape.ts";
import { IMAGE_TARGETS, imageTrainingGraph } from "../src/train/image-plan.ts";

/** Ops that generated code has besides elementwise ones. */
const STRUCTURAL = ["reshape", "cast", "transpose", "slice", "pad", "concat", "gatherRows"];

it("every op has a kernel or generated code, attention its own; no value is larger than im2col's", () => {
  const configs = knownConfigs("sd1");
  const layers = pipelineLayers(configs).filter(({ module }) => module.startsWith("unet."));
  const config = lora({ r: 16, targetModules: [...IMAGE_TARGETS] });
  const sites = resolveTargets(config, layers, { defaults: IMAGE_TARGETS, head: "" });
  const shape = { batch: 1, height: 64, width: 64, length: 77 };
  const graph = imageTrainingGraph({ configs, sites, checkpointing: false }, shape);
  const plan = planGraph(graph, "bf16");
  const unknown = plan.order.filter(
    (node) =>
      !isLeaf(node) &&
      !isUnfused(node) &&
      !isReduction(node) &&
      node.op !== leaves.constant &&
      !pointwise[node.op.name] &&
      !STRUCTURAL.includes(node.op.name),
  );
  expect(unknown.map(({ op }) => op.name)).toEqual([]);
  const count = (name: string): number => plan.order.filter(({ op }) => op.name === name).length;
  // 16 transformer layers, attention to itself and to the text; heads of 40, 80 and 160
  expect([count("attention"), count("attentionGradient")]).toEqual([32, 3 * 32]);
  const sums = findSums(plan);
  const { stored } = chooseStored(plan, sums);
  const largest = Math.max(...[...stored, ...sums.keys()].map((node) => sizeOf(node.shape)));
  expect(largest).toBeLessThanOrEqual(960 * 9 * 64 * 64);
  const groups = findLoraGroups(plan, sums, () => false);
  const adapted = groups.flatMap(({ members }) => members).filter(({ adapter }) => adapter);
  expect(sites.size).toBe(128);
  expect(adapted.length).toBeGreaterThanOrEqual(96);
}, 60_000);
