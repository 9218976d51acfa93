import { expect, test } from "vitest";
import type { GenerateOptions } from "./answer-row.ts";
import { checkGeneration } from "./check-generation.ts";

const faultsOf = (options: GenerateOptions): string => {
  try {
    checkGeneration(options);
  } catch (error) {
    expect(error).toMatchObject({ code: "config-invalid" });
    return (error as Error).message;
  }
  return "";
};

test("options in their ranges pass, ends included", () => {
  expect(faultsOf({})).toBe("");
  expect(faultsOf({ temperature: 0, topK: 0, topP: 0, minP: 1, maxNewTokens: 0, seed: 0 })).toBe(
    "",
  );
  expect(faultsOf({ temperature: 2.5, topP: 1, repetitionPenalty: 1.1 })).toBe("");
});

test.each([
  [{ temperature: -0.1 }, "temperature: expected a number of at least 0, got -0.1"],
  [{ temperature: NaN }, "temperature: expected a number of at least 0, got NaN"],
  [{ topP: 1.5 }, "topP: expected a number from 0 to 1, got 1.5"],
  [{ minP: -1 }, "minP: expected a number from 0 to 1, got -1"],
  [{ repetitionPenalty: 0 }, "repetitionPenalty: expected a number of at least 0.01, got 0"],
  [{ topK: 2.5 }, "topK: expected a whole number of at least 0, got 2.5"],
  [{ maxNewTokens: -1 }, "maxNewTokens: expected a whole number of at least 0, got -1"],
  [{ seed: 0.5 }, "seed: expected a whole number of at least 0, got 0.5"],
])("%o is refused", (options, fault) => {
  expect(faultsOf(options)).toContain(fault);
});

test("all faults are listed at once", () => {
  expect(faultsOf({ temperature: -1, topP: 2 })).toMatch(/2 faults[^]*temperature[^]*topP/);
});
