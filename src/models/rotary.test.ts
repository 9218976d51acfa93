import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { interpret } from "../backends/reference/interpret.ts";
import { literal } from "../ops/leaf.ts";
import type { HfConfig } from "./config.ts";
import { anglesOf, rotaryOf } from "./rotary.ts";

interface Case {
  readonly name: string;
  readonly parameters: HfConfig;
  readonly frequencies: readonly number[];
  readonly factor: number;
}
const path = new URL("fixtures/rotary.json", import.meta.url);
const cases = JSON.parse(readFileSync(path, "utf8")) as Case[];

describe.each(cases)("$name: transformers' frequencies and factor", (example) => {
  const { rope_theta, rope_type, ...scaling } = example.parameters;
  const spellings: [string, HfConfig][] = [
    ["rope_parameters", { rope_parameters: example.parameters }],
    ["rope_scaling", { rope_theta, rope_scaling: { type: rope_type, ...scaling } }],
  ];

  it.each(spellings)("in %s", (_, spelled) => {
    const config = { max_position_embeddings: 270, ...spelled };
    const { frequencies, factor } = rotaryOf(config, 24, { length: 1 });
    expect(frequencies).toHaveLength(example.frequencies.length);
    // theirs are float32
    for (const [i, want] of example.frequencies.entries())
      expect(Math.abs(frequencies[i]! / want - 1)).toBeLessThan(1e-6);
    expect(factor).toBeCloseTo(example.factor, 12);
  });
});

it("names a rope type that is not supported", () => {
  const config = { rope_scaling: { type: "dynamic", factor: 2 } };
  expect(() => rotaryOf(config, 8, { length: 1 })).toThrow(/linear.*got dynamic/);
});

it("longrope: a step over a cache of more slots than are used goes by its token's position", () => {
  const rope = { rope_type: "longrope", short_factor: [1], long_factor: [2], original_max_position_embeddings: 32 }; // prettier-ignore
  const config = { max_position_embeddings: 64, rope_parameters: { ...rope, attention_factor: 1 } };
  const cosines = (length: number, cacheLength: number, ...positions: number[]): number[] => {
    const data = BigInt64Array.from(positions, BigInt);
    const given = literal({ dtype: "i64", shape: [1, positions.length], data });
    const angles = anglesOf(rotaryOf(config, 2, { length, cacheLength }), given);
    const [cos] = interpret([angles.cos], () => undefined as never);
    return Array.from(cos!.data, (value) => Number(value.toFixed(5)));
  };
  const [short, long] = [1, 2].map((by) => (at: number) => Number(Math.cos(at / by).toFixed(5)));
  expect(cosines(1, 64, 20, 31, 32, 40)).toEqual([short!(20), short!(31), long!(32), long!(40)]);
  expect(cosines(1, 16, 12)).toEqual([short!(12)]);
  expect(cosines(32, 0, 20)).toEqual([short!(20)]);
  expect(cosines(33, 0, 20)).toEqual([long!(20)]);
});
