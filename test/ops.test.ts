import { describe, expect, it } from "vitest";
import { interpret } from "../src/backends/reference/interpret.ts";
import type { Node } from "../src/ir/node.ts";
import type { OpCase } from "../src/ir/rules.ts";
import { verify } from "../src/ir/verify.ts";
import { input } from "../src/ops/leaf.ts";
import { mul } from "../src/ops/mul.ts";
import { reduceSum } from "../src/ops/reduce-sum.ts";
import { axesOf } from "../src/ops/reduction.ts";
import { registry } from "../src/ops/registry.ts";
import { expand } from "../src/passes/expand.ts";
import { gradient } from "../src/passes/gradient.ts";
import { Random } from "../src/tensor/random.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";
import { buildCase } from "./support/cases.ts";

const title = (test: OpCase): string => JSON.stringify({ ...test.shapes, ...test.attrs });
/** Built by the gradient of another op alone, whose cases check them. */
const PARTS = ["attentionGradient", "linearCrossEntropyGradient"];

it("has cases for every op", () => {
  const without = registry.filter(({ cases }) => cases.length === 0);
  expect(without.map(({ name }) => name)).toEqual(PARTS);
});

describe.each(registry.filter(({ name }) => !PARTS.includes(name)))("$name", (rules) => {
  it("has known values, and a way to be computed", () => {
    expect(rules.cases.some(({ known }) => known)).toBe(true);
    expect(rules.evaluate ?? rules.decompose).toBeDefined();
  });

  it.each(rules.cases.map((test) => [title(test), test] as const))("%s", (_, test) => {
    const { node, feeds } = buildCase(rules, test);
    verify([node]);
    const [value] = interpret([node], (name) => feeds[name]!);
    expect(value!.data).toHaveLength(node.shape.reduce((size, dim) => size * dim, 1));
    expect(value!.data.every(Number.isFinite)).toBe(true);
    if (test.known)
      for (const [i, want] of test.known.output.entries())
        expect(value!.data[i]).toBeCloseTo(want, 12);
    if (!rules.decompose) return;
    const simpler = expand([node], ({ op }) => op !== rules && op.evaluate !== undefined);
    verify(simpler);
    expect([simpler[0]!.shape, simpler[0]!.dtype]).toEqual([node.shape, node.dtype]);
    const [same] = interpret(simpler, (name) => feeds[name]!);
    expect(Math.max(...same!.data.map((x, i) => Math.abs(x - value!.data[i]!)))).toBeLessThan(
      1e-12,
    );
  });

  const differentiable = rules.cases.filter((test) => test.noGradient === undefined);
  it.each(differentiable.map((test) => [title(test), test] as const))(
    "gradient in a random direction: %s",
    (_, test) => {
      checkGradient(buildCase(rules, test, 2));
    },
  );
});

describe("the sum of the gradients when one node is passed twice", () => {
  const checked = new Set<string>();
  for (const rules of registry)
    for (const test of rules.cases.filter(({ noGradient }) => noGradient === undefined)) {
      const { node, floats, feeds } = buildCase(rules, test);
      const [a, ...others] = floats;
      const b = others.find(({ shape }) => shape.join() === a?.shape.join());
      if (!a || !b || checked.has(rules.name)) continue;
      checked.add(rules.name);
      it(`of ${rules.name}: ${title(test)}`, () => {
        const inputs = node.inputs.map((input) => (input === b ? a : input));
        checkGradient({ node: { ...node, inputs }, floats: floats.filter((x) => x !== b), feeds });
      });
    }

  it("covers the ops of two or more inputs of one shape", () => {
    expect([...checked].join(" ")).toBe("add attention div geglu matmul maximum mul sub swiglu");
  });
});

/** ⟨direction, gradient⟩ against a central difference of ⟨random weights, op⟩ in float64, to 1e-7 relative. */
function checkGradient({
  node,
  floats,
  feeds,
}: {
  node: Node;
  floats: readonly Node[];
  feeds: Record<string, Tensor>;
}): void {
  const random = new Random(3);
  const uniform = (length: number): Float64Array =>
    Float64Array.from({ length }, () => random.uniform() - 0.5);
  const seed = tensor("f64", node.shape, uniform(node.shape.reduce((size, dim) => size * dim, 1)));
  const product = mul(node, input("seed weights", node.shape));
  const loss = node.shape.length > 0 ? reduceSum(product, { axes: axesOf(node.shape) }) : product;
  const result = gradient(loss, floats);
  const at = (
    step: number,
    roots: readonly Node[],
    directions: readonly Float64Array[],
  ): Float64Array[] => {
    const moved: Record<string, Tensor> = { ...feeds, "seed weights": seed };
    floats.forEach((leaf, i) => {
      const values = feeds[leaf.name!]!.data as Float64Array;
      moved[leaf.name!] = tensor(
        "f64",
        leaf.shape,
        values.map((x, j) => x + step * directions[i]![j]!),
      );
    });
    return interpret(roots, (name) => moved[name]!).map((value) => value.data);
  };
  const directions = floats.map((leaf) => uniform(leaf.shape.reduce((size, dim) => size * dim, 1)));
  const gradients = at(0, result.gradients, directions);
  let slope = 0;
  gradients.forEach((values, i) => values.forEach((g, j) => (slope += g * directions[i]![j]!)));
  const h = 1e-5;
  const difference =
    (at(h, [loss], directions)[0]![0]! - at(-h, [loss], directions)[0]![0]!) / (2 * h);
  expect(Math.abs(slope - difference)).toBeLessThan(
    1e-7 * Math.max(1, Math.abs(slope), Math.abs(difference)),
  );
}
