import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { decodeSafetensors } from "../formats/safetensors.ts";
import type { LorikeetError } from "../errors.ts";
import { toFloat64 } from "../tensor/convert.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Adapter, decodeAdapter, encodeAdapter, peftKey } from "./adapter.ts";
import { type CombinationType, combine } from "./combine.ts";
import { siteOf } from "./targets.ts";

interface Case {
  readonly adapters: readonly string[];
  readonly weights: readonly number[];
  readonly combination_type: CombinationType;
  readonly density?: number;
  readonly svd_rank?: number;
  readonly majority_sign_method?: "total" | "frequency";
  readonly rank: number;
}

const folder = join(import.meta.dirname, "../../test/fixtures/combine");
const cases = JSON.parse(await readFile(join(folder, "cases.json"), "utf8")) as Record<
  string,
  Case
>;
let expected: ReadonlyMap<string, Tensor>;

beforeAll(async () => {
  expected = (await decodeSafetensors(await readFile(join(folder, "expected.safetensors"))))
    .tensors;
});

async function adapterOf(name: string): Promise<Adapter> {
  const path = join(folder, "adapters", name);
  return decodeAdapter(
    await readFile(join(path, "adapter_config.json"), "utf8"),
    await readFile(join(path, "adapter_model.safetensors")),
  );
}

/** scale · B·A of a module. */
function deltaOf(adapter: Adapter, module: string): Float64Array {
  const [a, b] = ["lora_A.weight", "lora_B.weight"].map((part) =>
    adapter.tensors.get(peftKey(module, part))!,
  );
  const [down, up] = [toFloat64(a!), toFloat64(b!)];
  const [rank, inFeatures] = a!.shape as [number, number];
  const { scale } = siteOf(adapter.config, module);
  return Float64Array.from({ length: b!.shape[0]! * inFeatures }, (_, i) => {
    let sum = 0;
    for (let r = 0; r < rank; r++)
      sum += up[Math.floor(i / inFeatures) * rank + r]! * down[r * inFeatures + (i % inFeatures)]!;
    return scale * sum;
  });
}

function distance(got: Float64Array, want: Float64Array): number {
  return Math.hypot(...got.map((value, i) => value - want[i]!)) / Math.hypot(...want);
}

describe.each(Object.entries(cases))("%s", (name, test) => {
  it("is PEFT's weight change", async () => {
    const adapters = await Promise.all(test.adapters.map(adapterOf));
    const combined = combine(adapters, {
      weights: test.weights,
      combinationType: test.combination_type,
      ...(test.density !== undefined && { density: test.density }),
      ...(test.svd_rank !== undefined && { svdRank: test.svd_rank }),
      ...(test.majority_sign_method && { majoritySignMethod: test.majority_sign_method }),
      keeps({ module, adapter, side }, i) {
        const part = side === "delta" ? "" : `.lora_${side}`;
        return (
          Number(
            expected.get(`${name}.mask.${module}${part}.${test.adapters[adapter]!}`)!.data[i],
          ) === 1
        );
      },
    });
    expect(combined.config.r).toBe(test.rank);
    expect(combined.config.alpha).toBe(test.rank);
    // PEFT leaves rsLoRA on, so that its result is √rank times too large
    const fault = name.startsWith("rslora") ? Math.sqrt(test.rank) : 1;
    const modules = [...expected.keys()].filter((key) => key.startsWith(`${name}.delta.`));
    expect(modules.length).toBeGreaterThanOrEqual(2);
    for (const key of modules) {
      const module = key.slice(`${name}.delta.`.length);
      const want = toFloat64(expected.get(key)!).map((value) => value / fault);
      expect(distance(deltaOf(combined, module), want), module).toBeLessThan(1e-5);
    }
    expect(combined.tensors.size).toBe(2 * modules.length);
  });
});

it("cat is the weighted sum, and svd of enough rank too", async () => {
  const adapters = await Promise.all(["first", "second", "third"].map(adapterOf));
  const weights = cases["cat"]!.weights;
  for (const [combinationType, svdRank] of [["cat"], ["svd", 14]] as const) {
    const combined = combine(adapters, { weights, combinationType, ...(svdRank && { svdRank }) });
    for (const [key, exact] of expected)
      if (key.startsWith("cat.exact."))
        expect(
          distance(deltaOf(combined, key.slice("cat.exact.".length)), toFloat64(exact)),
        ).toBeLessThan(1e-6);
  }
});

it("is saved and read as any adapter", async () => {
  const combined = combine(await Promise.all(["first", "second"].map(adapterOf)));
  const { config, weights } = encodeAdapter(combined);
  const again = await decodeAdapter(config, weights);
  expect(again.config).toEqual(combined.config);
  expect(again.tensors).toEqual(combined.tensors);
  expect(combined.config.targetModules).toEqual(["down_proj", "q_proj", "v_proj"]);
});

it("draws dare's masks from the seed", async () => {
  const adapters = await Promise.all(["first", "second"].map(adapterOf));
  const bytes = (seed: number): Uint8Array =>
    encodeAdapter(combine(adapters, { combinationType: "dare_ties", density: 0.5, seed })).weights;
  expect(bytes(1)).toEqual(bytes(1));
  expect(bytes(1)).not.toEqual(bytes(2));
});

it("refuses all that cannot be combined, at once", async () => {
  const [first, third] = (await Promise.all(["first", "third"].map(adapterOf))) as [
    Adapter,
    Adapter,
  ];
  const messageOf = (run: () => unknown): string => {
    try {
      run();
    } catch (error) {
      expect((error as LorikeetError).code).toBe("combine");
      return (error as LorikeetError).message;
    }
    return "";
  };
  expect(messageOf(() => combine([first, third], { combinationType: "linear" }))).toContain(
    "one rank for linear, got 4, 6 on",
  );
  const dora = { ...first, config: { ...first.config, useDora: true } };
  const message = messageOf(() =>
    combine([first, dora], { weights: [1], combinationType: "ties" }),
  );
  expect(message).toContain("a weight for each of 2 adapters, got 1");
  expect(message).toContain("a density above 0 up to 1 for ties, got undefined");
  expect(message).toContain("plain LoRA, got DoRA in adapter 1");
  expect(messageOf(() => combine([]))).toContain("at least one adapter");
  const halves = new Map([...third.tensors].map(([key, value]) => [key, key.includes("lora_A") ? { ...value, shape: [6, value.shape[1]! / 2], data: value.data.slice(value.data.length / 2) } : value])); // prettier-ignore
  expect(messageOf(() => combine([first, { ...third, tensors: halves }], { combinationType: "cat" }))).toMatch(/adapters of one base, got layers of (\d+) → (\d+), \d+ → \2 features on/); // prettier-ignore
  for (const [field, extra] of [
    ["target_parameters", { targetParameters: ["q_proj.weight"] }],
    ["ensure_weight_tying", { ensureWeightTying: true }],
  ] as const)
    expect(messageOf(() => combine([{ ...first, config: { ...first.config, ...extra } }]))).toContain(`plain LoRA, got ${field} in adapter 0`); // prettier-ignore
  expect(messageOf(() => combine([first], { combinationType: "sum" as never }))).toContain(
    "got sum",
  );
});
