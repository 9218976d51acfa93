import { expect, it } from "vitest";
import type { LoraCandidate } from "../passes/lora.ts";
import { tensor } from "../tensor/tensor.ts";
import { type Adapter, peftKey } from "./adapter.ts";
import { AdapterBank } from "./bank.ts";
import { lora } from "./lora-config.ts";

const layers: readonly LoraCandidate[] = ["up", "down"].map((module) => ({
  module,
  kind: "linear",
  inFeatures: 3,
  outFeatures: 2,
  kernel: [],
  groups: 1,
  fanInFanOut: false,
  weight: `${module}.weight`,
}));

function adapter(r: number, fill: number, modules: readonly string[]): Adapter {
  const pairs = modules.flatMap((module) => [
    [peftKey(module, "lora_A.weight"), tensor("f32", [r, 3], new Float32Array(3 * r).fill(1))] as const, // prettier-ignore
    [peftKey(module, "lora_B.weight"), tensor("f32", [2, r], new Float32Array(2 * r).fill(fill))] as const, // prettier-ignore
  ]);
  return {
    config: lora({ r, alpha: 2 * r, targetModules: [...modules] }),
    tensors: new Map(pairs),
  };
}

const valuesOf = (bank: AdapterBank, key: string): number[] => [
  ...(bank.tensors.get(key)!.data as Float32Array),
];
const UP = peftKey("up", "lora_B.weight");
const DOWN = peftKey("down", "lora_B.weight");

it("what a bank brings into a graph is the same whatever is loaded, so that nothing is compiled again", () => {
  const bank = new AdapterBank(4, layers);
  const shapes = (): unknown => [...bank.tensors].map(([key, { shape, dtype }]) => [key, shape, dtype]); // prettier-ignore
  const before = { sites: [...bank.sites], shapes: shapes() };
  bank.add("a", adapter(1, 1, ["up", "down"]));
  bank.add("b", adapter(3, 2, ["up"]));
  bank.add("a", adapter(1, 3, ["up"]), { replace: true });
  expect({ sites: [...bank.sites], shapes: shapes() }).toEqual(before);
});

it("a replaced adapter leaves nothing behind: scale inside B, columns of others untouched", () => {
  const bank = new AdapterBank(4, layers);
  bank.add("a", adapter(2, 1, ["up", "down"]));
  bank.add("b", adapter(2, 5, ["up"]));
  expect(valuesOf(bank, UP)).toEqual([2, 2, 10, 10, 2, 2, 10, 10]);
  bank.add("a", adapter(1, 3, ["up"]), { replace: true });
  expect(valuesOf(bank, UP)).toEqual([6, 0, 10, 10, 6, 0, 10, 10]);
  expect(valuesOf(bank, DOWN)).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
});

it.each([NaN, Infinity, 3e38])("B of %s, scaled by 2, is refused and the bank keeps what it held", (fill) => {
  const bank = new AdapterBank(2, layers);
  bank.add("a", adapter(2, 1, ["up"]));
  expect(() => bank.add("a", adapter(2, fill, ["up"]), { replace: true })).toThrow("finite");
  expect(valuesOf(bank, UP)).toEqual([2, 2, 2, 2]);
}); // prettier-ignore

it.each([0, 1.5, NaN])("a bank of rank %s is refused", (rank) => {
  expect(() => new AdapterBank(rank, layers)).toThrow("a positive whole number");
});
