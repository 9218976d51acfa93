import { expect, it } from "vitest";
import { largestDifference, valuesOf } from "../../test/support/values.ts";
import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { print } from "../ir/print.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { dropout } from "../ops/dropout.ts";
import { input, isTrainable, parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { reduceSum } from "../ops/reduce-sum.ts";
import { silu } from "../ops/silu.ts";
import { checkpoint } from "./checkpoint.ts";
import { cse } from "./cse.ts";
import { expand } from "./expand.ts";
import { gradient } from "./gradient.ts";

const isRecomputed = ({ phase }: Node): boolean => phase === "recompute";

/** A network of residual blocks x + silu(x·Wᵀ) with a boundary after each, and its gradients. */
function network(blocks: number, block = silu): { loss: Node; gradients: Node[] } {
  let x = boundary(input("x", [2, 3]));
  for (let i = 0; i < blocks; i++) {
    const weight = parameter(`w${i}`, [3, 3], { trainable: true });
    x = boundary(add(x, block(linear(x, weight))));
  }
  const loss = reduceSum(x, { axes: [0, 1] });
  return gradient(loss, topological([loss]).filter(isTrainable));
}

it("computes a block again from its kept border", () => {
  const { loss, gradients } = network(1);
  expect(print({ loss, dw: gradients[0]! })).toMatchInlineSnapshot(`
    "%x = input() f32 [2, 3]
    %1 = boundary(%x) f32 [2, 3]
    %w0 = parameter() {trainable: true} f32 [3, 3]
    %3 = matmul(%1, %w0) {transA: false, transB: true} f32 [2, 3]
    %4 = silu(%3) f32 [2, 3]
    %5 = add(%1, %4) f32 [2, 3]
    %6 = boundary(%5) f32 [2, 3]
    %7 = reduceSum(%6) {keepDims: false, axes: [0, 1]} f32 []
    %8 = constant() {value: 1} f32 []
    %9 = reshape(%8) {shape: [1, 1]} f32 [1, 1]
    %10 = broadcastTo(%9) {shape: [2, 3]} f32 [2, 3]
    %11 = sigmoid(%3) f32 [2, 3]
    %12 = mul(%4, %11) f32 [2, 3]
    %13 = sub(%4, %12) f32 [2, 3]
    %14 = add(%11, %13) f32 [2, 3]
    %15 = mul(%10, %14) f32 [2, 3]
    %16 = matmul(%15, %1) {transA: true, transB: false} f32 [3, 3]
    → loss = %7
    → dw = %16"
  `);
  const [dw] = checkpoint(loss, gradients) as [Node];
  expect(print({ loss, dw })).toMatchInlineSnapshot(`
    "%x = input() f32 [2, 3]
    %1 = boundary(%x) f32 [2, 3]
    %w0 = parameter() {trainable: true} f32 [3, 3]
    %3 = matmul(%1, %w0) {transA: false, transB: true} f32 [2, 3]
    %4 = silu(%3) f32 [2, 3]
    %5 = add(%1, %4) f32 [2, 3]
    %6 = boundary(%5) f32 [2, 3]
    %7 = reduceSum(%6) {keepDims: false, axes: [0, 1]} f32 []
    %8 = constant() {value: 1} f32 []
    %9 = reshape(%8) {shape: [1, 1]} f32 [1, 1]
    %10 = broadcastTo(%9) {shape: [2, 3]} f32 [2, 3]
    %11 = matmul(%1, %w0) {transA: false, transB: true} @recompute f32 [2, 3]
    %12 = sigmoid(%11) f32 [2, 3]
    %13 = silu(%11) @recompute f32 [2, 3]
    %14 = mul(%13, %12) f32 [2, 3]
    %15 = sub(%13, %14) f32 [2, 3]
    %16 = add(%12, %15) f32 [2, 3]
    %17 = mul(%10, %16) f32 [2, 3]
    %18 = matmul(%17, %1) {transA: true, transB: false} f32 [3, 3]
    → loss = %7
    → dw = %18"
  `);
});

it("gives the same gradients, bit for bit", () => {
  const { loss, gradients } = network(4);
  const results = [loss, ...checkpoint(loss, gradients)];
  const want = valuesOf([loss, ...gradients]);
  expect(largestDifference(valuesOf(results), want)).toBe(0);
  expect(largestDifference(valuesOf(cse(results)), want)).toBe(0);
  const primitive = expand(results, () => false);
  expect(largestDifference(valuesOf(cse(primitive)), want)).toBe(0);
});

it("computes each value of a block again at most once, however many blocks there are", () => {
  const counts = [1, 2, 4, 8].map((blocks) => {
    const { loss, gradients } = network(blocks);
    return topological(cse([loss, ...checkpoint(loss, gradients)])).filter(isRecomputed).length;
  });
  // a block's product and its silu, which the backward pass of silu reads
  expect(counts).toEqual([2, 4, 8, 16]);
});

it("keeps recomputed nodes apart from the forward pass through expand and cse", () => {
  const { loss, gradients } = network(3);
  const primitive = cse(expand([loss, ...checkpoint(loss, gradients)], () => false));
  const forward = topological([primitive[0]!]);
  expect(forward.some(isRecomputed)).toBe(false);
  const inner = new Set(
    forward.filter(({ op, inputs }) => inputs.length > 0 && op !== boundary.rules),
  );
  // of the forward pass, what backward nodes read are borders and leaves only
  for (const node of topological(primitive.slice(1)))
    if (!inner.has(node) && node.op !== boundary.rules)
      expect(node.inputs.filter((read) => inner.has(read))).toEqual([]);
});

it("leaves gradients alone where nothing is kept", () => {
  const { loss, gradients } = network(2);
  expect(checkpoint(loss, gradients, () => false)).toEqual(gradients);
});

it("drops the same elements again", () => {
  const seed = input("seed", [], "i64");
  const { loss, gradients } = network(2, ((x: Node) =>
    silu(dropout(x, seed, { p: 0.5, stream: 1 }))) as typeof silu);
  const again = checkpoint(loss, gradients);
  expect(topological(again).some(isRecomputed)).toBe(true);
  expect(largestDifference(valuesOf(again), valuesOf(gradients))).toBe(0);
});
