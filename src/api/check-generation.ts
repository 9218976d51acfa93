import { faultsError } from "../formats/faults.ts";
import type { GenerateOptions } from "./answer-row.ts";

/** Least and most value of each number. */
const RANGES = {
  temperature: [0, Infinity],
  topP: [0, 1],
  minP: [0, 1],
  repetitionPenalty: [0.01, Infinity],
  topK: [0, Infinity],
  maxNewTokens: [0, Infinity],
  seed: [0, Infinity],
} as const;
const WHOLE: readonly string[] = ["topK", "maxNewTokens", "seed"];

/** @throws LorikeetError `config-invalid` listing every option that is out of its range */
export function checkGeneration(options: GenerateOptions): void {
  const faults = Object.entries(RANGES).flatMap(([key, [least, most]]) => {
    const value = options[key as keyof typeof RANGES];
    const isWhole = WHOLE.includes(key);
    if (value === undefined) return [];
    const fits = Number.isFinite(value) && value >= least && value <= most;
    if (fits && (!isWhole || Number.isInteger(value))) return [];
    const range = most === Infinity ? `of at least ${least}` : `from ${least} to ${most}`;
    return [`${key}: expected a ${isWhole ? "whole " : ""}number ${range}, got ${value}`];
  });
  if (options.stop?.includes(""))
    faults.push(`stop: expected texts of at least one character, got ""`);
  if (faults.length > 0)
    throw faultsError(
      "config-invalid",
      "options of generation in their ranges",
      faults,
      "Correct them, or leave them out: without temperature the likeliest token is taken.",
    );
}
