import { describe, expect, it } from "vitest";
import { buildCase } from "../../test/support/cases.ts";
import { interpret } from "../backends/reference/interpret.ts";
import { expand } from "../passes/expand.ts";
import { conv2d } from "./conv2d.ts";
import { convTranspose2d } from "./conv-transpose2d.ts";
import { correlate2d } from "./correlate2d.ts";
import { input } from "./leaf.ts";

const products = [conv2d.rules, convTranspose2d.rules, correlate2d.rules];

describe.each(products)("$name as a matrix product", (rules) => {
  it.each(
    rules.cases.map((test) => [JSON.stringify({ ...test.shapes, ...test.attrs }), test] as const),
  )("%s", (_, test) => {
    const { node, feeds } = buildCase(rules, test);
    const [columns] = expand([node], ({ op }) => op !== rules);
    expect(columns!.op).not.toBe(rules);
    const [want, got] = interpret([node, columns!], (name) => feeds[name]!);
    expect(got!.shape).toEqual(want!.shape);
    got!.data.forEach((value, i) => {
      expect(value).toBeCloseTo(want!.data[i]!, 12);
    });
  });
});

it("refuses channels that the groups do not divide, and kernels larger than the image", () => {
  const x = input("x", [1, 4, 3, 3]);
  expect(() => conv2d(x, input("w", [4, 3, 1, 1]))).toThrow("image (B, 3, H, W)");
  expect(() => conv2d(x, input("w", [3, 2, 1, 1]), { groups: 2 })).toThrow(
    "weight (Co, Ci/2, kh, kw)",
  );
  expect(() => conv2d(x, input("w", [4, 4, 4, 4]))).toThrow("kernel inside the image");
});
