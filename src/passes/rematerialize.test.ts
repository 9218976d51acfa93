import { expect, it } from "vitest";
import { interpret } from "../backends/reference/interpret.ts";
import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { input, parameter } from "../ops/leaf.ts";
import { matmul } from "../ops/matmul.ts";
import { reduceSum } from "../ops/reduce-sum.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { swiglu } from "../ops/swiglu.ts";
import { Random } from "../tensor/random.ts";
import { sizeOf } from "../tensor/shape.ts";
import { tensor } from "../tensor/tensor.ts";
import { cse } from "./cse.ts";
import { gradient } from "./gradient.ts";
import { rematerialize } from "./rematerialize.ts";

const x = input("x", [4, 6]);
const weights = ["gate", "up", "down"].map((name) =>
  parameter(name, name === "down" ? [6, 8] : [8, 6], { trainable: true }),
);

/** A residual gated MLP under a sum, and its gradients. */
function mlp(): { loss: Node; gradients: Node[] } {
  const [gate, up, down] = weights as [Node, Node, Node];
  const normed = rmsNorm(x, parameter("norm", [6]));
  const project = (w: Node): Node => matmul(normed, w, { transB: true });
  const y = add(x, matmul(swiglu(project(gate), project(up)), down, { transB: true }));
  const found = gradient(reduceSum(y, { axes: [0, 1] }), weights);
  const [loss, ...gradients] = cse([found.loss, ...found.gradients]) as [Node, ...Node[]];
  return { loss, gradients };
}

it("keeps products and computes what is cheap from them again, with the same gradients", () => {
  const { loss, gradients } = mlp();
  const rematerialized = rematerialize([loss], gradients);
  const again = topological(rematerialized).filter((node) => node.phase === "recompute");
  expect(again.map((node) => node.op.name).sort()).toEqual(["rmsNorm", "swiglu"]);
  const forward = new Set(topological([loss]));
  const kept = new Set(
    topological(rematerialized)
      .filter((node) => !forward.has(node))
      .flatMap((node) => node.inputs.filter((part) => forward.has(part) && part.inputs.length > 0)),
  );
  expect([...kept].map((node) => node.op.name)).toEqual(["matmul", "matmul"]);
  const random = new Random(1);
  const values = new Map(
    topological([loss])
      .filter((node) => node.name !== undefined)
      .map(({ name, shape }) => {
        const data = Float64Array.from({ length: sizeOf(shape) }, () => random.normal());
        return [name!, tensor("f64", shape, data)];
      }),
  );
  const bind = (name: string) => values.get(name)!;
  expect(interpret(rematerialized, bind)).toEqual(interpret(gradients, bind));
});

it("keeps a cheap value whose inputs would have to be kept for it alone", () => {
  const h = matmul(x, weights[0]!, { transB: true });
  const y = rmsNorm(add(h, h), parameter("norm", [8]));
  const { loss, gradients } = gradient(reduceSum(matmul(y, weights[1]!), { axes: [0, 1] }), [
    weights[1]!,
  ]);
  const again = topological(rematerialize([loss], gradients)).filter((node) => node.phase);
  expect(again).toEqual([]);
});
