import { expect, it } from "vitest";
import { interpret } from "../backends/reference/interpret.ts";
import { topological } from "../ir/graph.ts";
import { verify } from "../ir/verify.ts";
import { attention } from "../ops/attention.ts";
import { input, parameter } from "../ops/leaf.ts";
import { mul } from "../ops/mul.ts";
import { reduceSum } from "../ops/reduce-sum.ts";
import { Random } from "../tensor/random.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { gradient } from "./gradient.ts";
import { padHeads } from "./pad-heads.ts";

const [B, T, S, H, D] = [2, 3, 5, 2, 5];
const random = new Random(1);
const values = (shape: readonly number[], next = (): number => random.normal()): Tensor =>
  tensor("f64", shape, Float64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, next));
const leaf = (name: string, length: number): ReturnType<typeof parameter> =>
  parameter(name, [B, length, H, D], { trainable: true });
const [q, k, v] = [leaf("q", T), leaf("k", S), leaf("v", S)];
const segments = [input("segmentsQ", [B, T]), input("segmentsK", [B, S])] as const;
const y = attention(q, k, v, ...segments, { scale: 0.4, causal: false });
const { loss, gradients } = gradient(reduceSum(mul(y, y), { axes: [0, 1, 2, 3] }), [q, k, v]);
const roots = [loss, ...gradients];
const feeds = new Map([
  ...[q, k, v].map((node): [string, Tensor] => [node.name!, values(node.shape)]),
  ...segments.map((node): [string, Tensor] => [node.name!, values(node.shape, () => random.integer(2))]), // prettier-ignore
]);

it("gives the same result and gradients with heads of another size", () => {
  const padded = padHeads(roots, 8, () => true);
  verify(padded);
  const sizes = topological(padded)
    .filter(({ op }) => op === attention.rules || op.name === "attentionGradient")
    .map(({ shape }) => shape[3]);
  expect(sizes).toEqual([8, 8, 8, 8]);
  const run = (nodes: readonly (typeof loss)[]): Float64Array[] =>
    interpret(nodes, (name) => feeds.get(name)!).map(({ data }) => data);
  const [want, got] = [run(roots), run(padded)];
  for (const [i, root] of want.entries())
    for (const [j, value] of root.entries()) expect(got[i]![j]).toBeCloseTo(value, 12);
});

it("leaves sizes alone that are not asked for, or fit", () => {
  expect(padHeads(roots, 8, () => false)).toEqual(roots);
  expect(padHeads(roots, 5, () => true)).toEqual(roots);
});

it("computes again what belongs to a node that is computed again", () => {
  const again = padHeads([{ ...y, phase: "recompute" }], 8, () => true);
  const names = topological(again).flatMap(({ op, phase }) => (phase ? [op.name] : []));
  expect(names.sort()).toEqual(["attention", "pad", "pad", "pad", "slice"]);
});
