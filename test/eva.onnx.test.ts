import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { evaDirections, withEvaRanks } from "../src/adapter/init/eva.ts";
import { initialAdapter } from "../src/adapter/initial-adapter.ts";
import { peftKey } from "../src/adapter/adapter.ts";
import type { Adapter } from "../src/adapter/adapter.ts";
import { adapterBase } from "../src/adapter/adapter-base.ts";
import { type AdapterJson, parsePeftConfig } from "../src/adapter/peft-config.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import { lossFeeds } from "../src/api/feeds.ts";
import { createOnnxEngine } from "../src/backends/onnx/engine.ts";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import { loraTargets } from "../src/models/lora-targets.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import {
  activationRows,
  activationsGraph,
  countedRows,
  inputSources,
} from "../src/train/activations.ts";
import { stepShape, type TrainPlan } from "../src/train/plan.ts";
import { programCache } from "../src/train/program-cache.ts";
import type { Batch } from "../src/train/setup.ts";
import { plainLogits } from "../src/train/text-model.ts";
import { tinyModel } from "./support/tiny.ts";

const folder = join(import.meta.dirname, "fixtures");
interface Case {
  readonly config: AdapterJson;
  readonly eva: AdapterJson;
  readonly rank_pattern: Record<string, number>;
  readonly alpha_pattern: Record<string, number>;
}
const cases = JSON.parse(readFileSync(join(folder, "eva.json"), "utf8")) as Record<string, Case>;
const { tensors } = await decodeSafetensors(readFileSync(join(folder, "eva.safetensors")));
const model = await tinyModel("llama");
const engine = createOnnxEngine({ weights: model.weights, threads: 1 });
afterAll(() => engine.dispose());
const plan: TrainPlan = {
  config: model.config,
  sites: new Map(),
  trainsWeight: () => false,
  checkpointing: false,
};
const base = adapterBase(
  [plainLogits(model.config, { batch: 1, length: 1 })],
  loraTargets("llama"),
  model.weights,
);

/** The batches of the fixture, over and over. */
function* batches(): Generator<Record<string, Tensor>> {
  const { shape, data } = tensors.get("input_ids")!;
  const [count, rows, length] = shape as [number, number, number];
  const ids = Array.from(data as BigInt64Array, Number);
  for (let batch = 0; ; batch = (batch + 1) % count) {
    const texts = Array.from({ length: rows }, (_, row) => {
      const start = (batch * rows + row) * length;
      return ids.slice(start, start + length);
    });
    yield lossFeeds(
      texts,
      texts.map((text) => text.map((id, t) => (t < 3 ? -100 : id))),
    );
  }
}

async function fresh({ config, eva }: Case): Promise<Adapter> {
  const lora = parsePeftConfig({
    peft_type: "LORA",
    lora_alpha: 8,
    init_lora_weights: "eva",
    eva_config: eva,
    ...config,
  });
  const sites = resolveTargets(lora, base.layers, base.family);
  const sources = inputSources(plan, new Set(sites.keys()));
  const layers = [...sites.values()].map(({ module, rank }) => ({
    module,
    rank,
    source: sources.get(module)!,
  }));
  const source = batches();
  const rowsOf = (batch: Batch): ReturnType<typeof activationRows> =>
    activationRows(batch, lora.eva!.useLabelMask);
  const programs = programCache(engine, (batch) => {
    const shape = { ...stepShape(batch), rows: rowsOf(batch).rows.data.length };
    return activationsGraph(plan, shape, new Set(sources.values()));
  });
  const given = await evaDirections(layers, lora.eva!, async (names) => {
    const batch = source.next().value as Batch;
    const { rows, count } = rowsOf(batch);
    const found = await (await programs.get(batch)).run({ ...batch, activation_rows: rows });
    return new Map(names.map((name) => [name, countedRows(found[name]!, count)]));
  });
  await programs.dispose();
  return initialAdapter(withEvaRanks(lora, given, sites.keys()), base, { seed: 1, given });
}

describe.each(Object.entries(cases))("EVA as PEFT's: %s", (name, facts) => {
  it("ranks and alphas are the same, directions to 1e-4", async () => {
    const { config, tensors: made } = await fresh(facts);
    expect(config.rankPattern).toEqual(facts.rank_pattern);
    for (const [module, alpha] of Object.entries(facts.alpha_pattern))
      expect(config.alphaPattern[module], module).toBeCloseTo(alpha, 6);
    expect(Object.keys(config.alphaPattern).sort()).toEqual(
      Object.keys(facts.alpha_pattern).sort(),
    );
    const modules = [...tensors.keys()].flatMap((key) =>
      key.startsWith(`${name}.`) ? [key.slice(name.length + 1)] : [],
    );
    expect([...(config.targetModules as string[])].sort()).toEqual(modules.sort());
    let worst = 0;
    for (const module of modules) {
      const want = unitRows(tensors.get(`${name}.${module}`)!);
      const got = unitRows(made.get(peftKey(module, "lora_A.weight"))!);
      const error = Math.hypot(...want.map((x, i) => x - got[i]!)) / Math.hypot(...want);
      worst = Math.max(worst, error);
      expect(error, module).toBeLessThan(1e-4);
      const b = made.get(peftKey(module, "lora_B.weight"))!;
      expect(toFloat64(b).every((x) => x === 0)).toBe(true);
    }
    expect(worst).toBeGreaterThan(0);
  });
});

it("whitens with the singular values, as PEFT does where an input has one layer", async () => {
  const { tensors: made } = await fresh(cases["whiten"]!);
  const module = "model.layers.1.self_attn.o_proj";
  const want = toFloat64(tensors.get(`whiten.${module}`)!);
  const got = toFloat64(made.get(peftKey(module, "lora_A.weight"))!);
  const error = Math.hypot(...want.map((x, i) => x - got[i]!)) / Math.hypot(...want);
  expect(error).toBeLessThan(1e-4);
});

/** Rows of length 1: whitening changes lengths alone. */
function unitRows(matrix: Tensor): Float64Array {
  const columns = matrix.shape[1]!;
  const data = toFloat64(matrix);
  return data.map((value, i) => {
    const start = i - (i % columns);
    return value / Math.hypot(...data.subarray(start, start + columns));
  });
}
