/** @file Every case of every op, and its gradients, on the GPU against the float64 reference. */
import { type CudaEngine, cudaEngine } from "../../src/backends/cuda/engine.ts";
import { interpret } from "../../src/backends/reference/interpret.ts";
import type { Node } from "../../src/ir/node.ts";
import type { OpCase, Rules } from "../../src/ir/rules.ts";
import { input } from "../../src/ops/leaf.ts";
import { mul } from "../../src/ops/mul.ts";
import { reduceSum } from "../../src/ops/reduce-sum.ts";
import { axesOf } from "../../src/ops/reduction.ts";
import { registry } from "../../src/ops/registry.ts";
import { gradient } from "../../src/passes/gradient.ts";
import { Random } from "../../src/tensor/random.ts";
import { sizeOf } from "../../src/tensor/shape.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import type { WeightSource } from "../../src/backends/backend.ts";
import { buildCase } from "../support/cases.ts";
import { type Check, expectClose } from "./check.ts";

/** float32 arithmetic with the fast paths of the chip's exponentials. */
const LIMIT = 2e-5;

const noWeights: WeightSource = {
  names: [],
  get(name) {
    throw new Error(`no weight ${name}`);
  },
  read: (name) => Promise.reject(new Error(`no weight ${name}`)),
};

let engine: CudaEngine | undefined;

async function checkCase(rules: Rules, test: OpCase, seed: number): Promise<string> {
  engine ??= cudaEngine(noWeights, { precision: "f32" });
  const { node, floats, feeds } = buildCase(rules, test, seed);
  const random = new Random(seed + 7);
  const weights = tensor(
    "f64",
    node.shape,
    Float64Array.from({ length: sizeOf(node.shape) }, () => random.uniform() - 0.5),
  );
  const outputs: Record<string, Node> = { y: node };
  if (test.noGradient === undefined && floats.length > 0) {
    const product = mul(node, input("seed weights", node.shape));
    const loss = node.shape.length > 0 ? reduceSum(product, { axes: axesOf(node.shape) }) : product;
    gradient(loss, floats).gradients.forEach(
      (each, i) => (outputs[`d ${floats[i]!.name!}`] = each),
    );
  }
  const all = { ...feeds, "seed weights": weights };
  const expected = interpret(Object.values(outputs), (name) => all[name as keyof typeof all]);
  const program = await engine.compile({ outputs, gradients: {} });
  const actual = await program.run(all);
  await program.dispose();
  return Object.keys(outputs)
    .map((name, i) => expectClose(name, actual[name]!, expected[i]!.data, LIMIT))
    .join(", ");
}

/** One check a case. */
export const checks: readonly Check[] = registry.flatMap((rules) =>
  rules.cases.map((test, i) => ({
    name: `op ${rules.name} ${JSON.stringify({ ...test.shapes, ...test.attrs })}`,
    run: () => checkCase(rules, test, i + 1),
  })),
);
