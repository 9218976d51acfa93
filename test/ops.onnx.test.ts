import { afterAll, describe, expect, it } from "vitest";
import type { Engine, WeightSource } from "../src/backends/backend.ts";
import { createOnnxEngine } from "../src/backends/onnx/engine.ts";
import { interpret } from "../src/backends/reference/interpret.ts";
import { LorikeetError } from "../src/errors.ts";
import type { Node } from "../src/ir/node.ts";
import type { OpCase, Rules } from "../src/ir/rules.ts";
import { input } from "../src/ops/leaf.ts";
import { mul } from "../src/ops/mul.ts";
import { reduceSum } from "../src/ops/reduce-sum.ts";
import { axesOf } from "../src/ops/reduction.ts";
import { registry } from "../src/ops/registry.ts";
import { gradient } from "../src/passes/gradient.ts";
import { convert } from "../src/tensor/convert.ts";
import { Random } from "../src/tensor/random.ts";
import { sizeOf } from "../src/tensor/shape.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";
import { buildCase, type BuiltCase } from "./support/cases.ts";
import { describeDifference, nmse } from "./support/compare.ts";

/** f32 against float64: each op rounds to 2^-24, sums over a few hundred elements stay far below this. */
const TOLERANCE = 1e-7;

const noWeights: WeightSource = {
  names: [],
  get(name) {
    throw new LorikeetError("missing-weight", `Expected no weight to be read, got ${name}`);
  },
  read: (name) => Promise.reject(new LorikeetError("missing-weight", name)),
};
const engine: Engine = createOnnxEngine({ weights: noWeights, threads: 1 });
afterAll(() => engine.dispose());

const title = (test: OpCase): string => JSON.stringify({ ...test.shapes, ...test.attrs });

describe.each(registry.filter(({ cases }) => cases.length > 0))("$name", (rules: Rules) => {
  it.each(rules.cases.map((test) => [title(test), test] as const))("%s", async (_, test) => {
    const built = buildCase(rules, test);
    const outputs: Record<string, Node> = { value: built.node };
    const feeds = { ...built.feeds };
    if (test.noGradient === undefined) addGradients(built, outputs, feeds);
    const roots = Object.values(outputs);
    const want = interpret(roots, (name) => feeds[name]!);
    const got = await runOnnx(outputs, built, feeds);
    for (const [i, name] of Object.keys(outputs).entries()) {
      const [actual, expected] = [got[name]!, want[i]!];
      expect(actual.shape, name).toEqual(expected.shape);
      expect(
        nmse(actual.data, expected.data),
        `${name}: ${describeDifference(actual.data, expected.data)}`,
      ).toBeLessThan(TOLERANCE);
    }
  });
});

/** Adds the gradient of ⟨random weights, op⟩ for each float input to `outputs`. */
function addGradients(
  { node, floats }: BuiltCase,
  outputs: Record<string, Node>,
  feeds: Record<string, Tensor>,
): void {
  const random = new Random(3);
  const weights = Float64Array.from({ length: sizeOf(node.shape) }, () => random.uniform() - 0.5);
  feeds["seed weights"] = tensor("f64", node.shape, weights);
  const product = mul(node, input("seed weights", node.shape));
  const loss = node.shape.length > 0 ? reduceSum(product, { axes: axesOf(node.shape) }) : product;
  for (const [i, dx] of gradient(loss, floats).gradients.entries())
    outputs[`d ${floats[i]!.name!}`] = dx;
}

async function runOnnx(
  outputs: Record<string, Node>,
  { leaves }: BuiltCase,
  feeds: Record<string, Tensor>,
): Promise<Record<string, Tensor>> {
  const program = await engine.compile({ outputs, gradients: {} });
  const dtypes = new Map(leaves.map((leaf) => [leaf.name!, leaf.dtype]));
  const converted = Object.entries(feeds).map(([name, value]) => [
    name,
    convert(value, dtypes.get(name) ?? "f32"),
  ]);
  try {
    return await program.run(Object.fromEntries(converted) as Record<string, Tensor>);
  } finally {
    await program.dispose();
  }
}
