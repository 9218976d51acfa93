import { expect, test } from "vitest";
import { compileTogether } from "./compile-together.ts";
import { inGroups } from "./generated.ts";

test("what does not compile, with or without a compiler, is left out and rejects nothing", async () => {
  const jobs = ["a", "b", "c"].map((name) => ({ name, source: "no code", options: [] }));
  const kept: string[] = [];
  await compileTogether(jobs, ({ name }) => kept.push(name), 2).done;
  expect(kept).toEqual([]);
});

test("kernels are grouped in order, one that is too long alone", () => {
  const kernels = [4, 3, 4, 20, 1, 9].map((length) => ({ text: "x".repeat(length) }));
  const sizes = inGroups(kernels, 10).map((group) => group.map(({ text }) => text.length));
  expect(sizes).toEqual([[4, 3], [4], [20], [1, 9]]);
  expect(inGroups([])).toEqual([]);
});
