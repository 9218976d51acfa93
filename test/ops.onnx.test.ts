import { afterAll, describe, expect, it } from "vitest";
import { selfTest } from "../src/api/self-test.ts";
import type { Engine, WeightSource } from "../src/backends/backend.ts";
import { createOnnxEngine } from "../src/backends/onnx/engine.ts";
import { interpret } from "../src/backends/reference/interpret.ts";
import { LorikeetError } from "../src/errors.ts";
import type { Node } from "../src/ir/node.ts";
import type { OpCase, Rules } from "../src/ir/rules.ts";
import { cos } from "../src/ops/cos.ts";
import { input } from "../src/ops/leaf.ts";
import { mul } from "../src/ops/mul.ts";
import { reduceSum } from "../src/ops/reduce-sum.ts";
import { axesOf } from "../src/ops/reduction.ts";
import { registry } from "../src/ops/registry.ts";
import { sin } from "../src/ops/sin.ts";
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
const engines: Record<string, Engine> = {
  cpu: createOnnxEngine({ weights: noWeights, threads: 1 }),
  webgpu: createOnnxEngine({ weights: noWeights, threads: 1, provider: "webgpu" }),
};
afterAll(() => Promise.all(Object.values(engines).map((engine) => engine.dispose())));

/** Whether this machine has a WebGPU adapter; a machine without one skips its half, visibly. */
const hasWebgpu = await engines["webgpu"]!.compile({
  outputs: { y: mul(input("x", [1]), input("x", [1])) },
  gradients: {},
}).then(
  () => true,
  () => false,
);

const title = (test: OpCase): string => JSON.stringify({ ...test.shapes, ...test.attrs });

const withCases = registry.filter(({ cases }) => cases.length > 0);

describe.each(withCases)("$name on the CPU", (rules: Rules) => {
  it.each(rules.cases.map((test) => [title(test), test] as const))("%s", async (_, test) => {
    await compare(engines["cpu"]!, rules, test);
  });
});

describe.skipIf(!hasWebgpu)("on WebGPU", () => {
  it.each(withCases.map((rules) => [rules.name, rules] as const))("%s", async (_, rules) => {
    for (const test of rules.cases) await compare(engines["webgpu"]!, rules, test);
  });

  it("loss and gradients of a tiny model, far below what --device webgpu insists on", async () => {
    await selfTest(
      (weights) => createOnnxEngine({ weights, threads: 1, provider: "webgpu" }),
      1e-5,
    );
  });

  it.each([sin, cos])("$rules.name of large angles, which no bound of WGSL covers", async (op) => {
    const angles = Float32Array.from({ length: 64 }, (_, i) => 2048 * i);
    const x = input("x", [angles.length]);
    const program = await engines["webgpu"]!.compile({ outputs: { y: op(x) }, gradients: {} });
    const { y } = await program.run({ x: tensor("f32", x.shape, angles) });
    await program.dispose();
    const exact = op === sin ? Math.sin : Math.cos;
    const errors = Array.from(angles, (angle, i) => Math.abs(Number(y!.data[i]) - exact(angle)));
    expect(Math.max(...errors)).toBeLessThan(1e-6);
  });
});

/** Value and gradients of one case on `engine` against the reference. */
async function compare(engine: Engine, rules: Rules, test: OpCase): Promise<void> {
  const built = buildCase(rules, test);
  const outputs: Record<string, Node> = { value: built.node };
  const feeds = { ...built.feeds };
  if (test.noGradient === undefined) addGradients(built, outputs, feeds);
  const roots = Object.values(outputs);
  const want = interpret(roots, (name) => feeds[name]!);
  const got = await runOnnx(engine, outputs, { built, feeds });
  for (const [i, name] of Object.keys(outputs).entries()) {
    const [actual, expected] = [got[name]!, want[i]!];
    expect(actual.shape, name).toEqual(expected.shape);
    expect(
      nmse(actual.data, expected.data),
      `${name}: ${describeDifference(actual.data, expected.data)}`,
    ).toBeLessThan(TOLERANCE);
  }
}

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
  engine: Engine,
  outputs: Record<string, Node>,
  { built: { leaves }, feeds }: { built: BuiltCase; feeds: Record<string, Tensor> },
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
