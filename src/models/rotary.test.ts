import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { HfConfig } from "./config.ts";
import { rotaryOf } from "./rotary.ts";

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
