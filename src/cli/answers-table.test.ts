import { stripVTControlCharacters } from "node:util";
import { expect, test } from "vitest";
import { answersTable } from "./answers-table.ts";

const SAMPLES = [
  { type: "sample", prompt: "Hello!", base: `\n${"The sea. ".repeat(40)}`, adapted: "Squawk!" },
] as const;

test("prompt, base and adapted answer stand side by side, the base cut short", () => {
  const table = stripVTControlCharacters(answersTable(SAMPLES, 100));
  expect(table).toContain("Base model");
  expect(table).toMatch(/│ Hello! +│ The sea\. The sea\. .*│ Squawk! +│/);
  expect(table).toContain("…");
});

test.each([60, 100, 300])("fits into %i columns", (width) => {
  const lines = stripVTControlCharacters(answersTable(SAMPLES, width)).split("\n");
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(Math.min(width, 120));
});
