import { expect, it } from "vitest";
import { largestDifference, valuesOf } from "../../test/support/values.ts";
import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { print } from "../ir/print.ts";
import { linear } from "../ops/linear.ts";
import { input, parameter } from "../ops/leaf.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { silu } from "../ops/silu.ts";
import { registry } from "../ops/registry.ts";
import { buildCase } from "../../test/support/cases.ts";
import { expand } from "./expand.ts";

const x = input("x", [2, 4]);
const layer = silu(linear(rmsNorm(x, parameter("n", [4])), parameter("w", [3, 4])));

it("replaces what is refused, in every depth, and leaves the rest", () => {
  expect(print({ y: layer })).toMatchInlineSnapshot(`
    "%x = input() f32 [2, 4]
    %n = parameter() {trainable: false} f32 [4]
    %2 = rmsNorm(%x, %n) {eps: 0.000001} f32 [2, 4]
    %w = parameter() {trainable: false} f32 [3, 4]
    %4 = linear(%2, %w) {fanInFanOut: false, module: } f32 [2, 3]
    %5 = silu(%4) f32 [2, 3]
    → y = %5"
  `);
  const [primitive] = expand([layer], (node) => node.op.evaluate !== undefined) as [Node];
  expect(print({ y: primitive })).toMatchInlineSnapshot(`
    "%x = input() f32 [2, 4]
    %1 = constant() {value: 1} f32 []
    %2 = mul(%x, %x) f32 [2, 4]
    %3 = reduceSum(%2) {keepDims: true, axes: [1]} f32 [2, 1]
    %4 = constant() {value: 0.25} f32 []
    %5 = mul(%3, %4) f32 [2, 1]
    %6 = constant() {value: 0.000001} f32 []
    %7 = add(%5, %6) f32 [2, 1]
    %8 = sqrt(%7) f32 [2, 1]
    %9 = div(%1, %8) f32 [2, 1]
    %10 = mul(%x, %9) f32 [2, 4]
    %n = parameter() {trainable: false} f32 [4]
    %12 = mul(%10, %n) f32 [2, 4]
    %w = parameter() {trainable: false} f32 [3, 4]
    %14 = matmul(%12, %w) {transA: false, transB: true} f32 [2, 3]
    %15 = constant() {value: 1} f32 []
    %16 = constant() {value: 1} f32 []
    %17 = constant() {value: -1} f32 []
    %18 = mul(%14, %17) f32 [2, 3]
    %19 = exp(%18) f32 [2, 3]
    %20 = add(%16, %19) f32 [2, 3]
    %21 = div(%15, %20) f32 [2, 3]
    %22 = mul(%14, %21) f32 [2, 3]
    → y = %22"
  `);
  const [kept] = expand([layer], (node) => node.op === silu.rules || node.op === rmsNorm.rules) as [
    Node,
  ];
  expect(print({ y: kept })).toMatchInlineSnapshot(`
    "%x = input() f32 [2, 4]
    %n = parameter() {trainable: false} f32 [4]
    %2 = rmsNorm(%x, %n) {eps: 0.000001} f32 [2, 4]
    %w = parameter() {trainable: false} f32 [3, 4]
    %4 = matmul(%2, %w) {transA: false, transB: true} f32 [2, 3]
    %5 = silu(%4) f32 [2, 3]
    → y = %5"
  `);
  expect(largestDifference(valuesOf([layer]), valuesOf([kept]))).toBe(0);
  expect(largestDifference(valuesOf([layer]), valuesOf([primitive]))).toBe(0);
});

it("keeps a graph of primitives as it is", () => {
  const [primitive] = expand([layer], () => false) as [Node];
  expect(expand([primitive], () => false)[0]).toBe(primitive);
});

it("shares what was shared", () => {
  const shared = silu(x);
  const [a, b] = expand([shared, silu(shared)], () => false) as [Node, Node];
  expect(topological([b]).includes(a)).toBe(true);
});

it("marks what a recomputed node becomes as recomputed, but no leaf", () => {
  const again: Node = { ...silu(x), phase: "recompute" };
  const nodes = topological(expand([again], () => false));
  expect(nodes.filter(({ inputs }) => inputs.length > 0).every(({ phase }) => phase)).toBe(true);
  expect(nodes.filter(({ inputs }) => inputs.length === 0).some(({ phase }) => phase)).toBe(false);
});

it("reaches primitives from every op", () => {
  const composites = registry.filter(({ decompose, cases }) => decompose && cases.length > 0);
  expect(composites.length).toBeGreaterThan(15);
  for (const rules of composites) {
    const nodes = topological(expand([buildCase(rules, rules.cases[0]!).node], () => false));
    for (const { op, inputs } of nodes)
      expect(inputs.length === 0 || op.evaluate !== undefined, op.name).toBe(true);
  }
});
