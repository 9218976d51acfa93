import { expect, it } from "vitest";
import { valuesOf } from "../../test/support/values.ts";
import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { print } from "../ir/print.ts";
import { input, parameter } from "../ops/leaf.ts";
import { less } from "../ops/less.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { reduceSum } from "../ops/reduce-sum.ts";
import { sin } from "../ops/sin.ts";
import { stopGradient } from "../ops/stop-gradient.ts";
import { gradient } from "./gradient.ts";

const x = input("x", [2, 3]);
const w = parameter("w", [4, 3], { trainable: true });
const sum = (y: Node): Node => reduceSum(y, { axes: y.shape.map((_, axis) => axis) });

it("writes the backward pass of a layer", () => {
  const loss = sum(sin(linear(x, w)));
  expect(print({ loss })).toMatchInlineSnapshot(`
    "%x = input() f32 [2, 3]
    %w = parameter() {trainable: true} f32 [4, 3]
    %2 = linear(%x, %w) {fanInFanOut: false, module: } f32 [2, 4]
    %3 = sin(%2) f32 [2, 4]
    %4 = reduceSum(%3) {keepDims: false, axes: [0, 1]} f32 []
    → loss = %4"
  `);
  const result = gradient(loss, [w]);
  expect(print({ loss: result.loss, dw: result.gradients[0]! })).toMatchInlineSnapshot(`
    "%x = input() f32 [2, 3]
    %w = parameter() {trainable: true} f32 [4, 3]
    %2 = matmul(%x, %w) {transA: false, transB: true} f32 [2, 4]
    %3 = sin(%2) f32 [2, 4]
    %4 = reduceSum(%3) {keepDims: false, axes: [0, 1]} f32 []
    %5 = constant() {value: 1} f32 []
    %6 = reshape(%5) {shape: [1, 1]} f32 [1, 1]
    %7 = broadcastTo(%6) {shape: [2, 4]} f32 [2, 4]
    %8 = cos(%2) f32 [2, 4]
    %9 = mul(%7, %8) f32 [2, 4]
    %10 = matmul(%9, %x) {transA: true, transB: false} f32 [4, 3]
    → loss = %4
    → dw = %10"
  `);
});

it("builds nothing for frozen weights and inputs", () => {
  const frozen = parameter("frozen", [4, 4]);
  const loss = sum(linear(linear(x, w), frozen));
  const result = gradient(loss, [w]);
  const shapes = topological(result.gradients).map(({ shape }) => shape.join());
  // d(loss)/d(frozen) would be the only 4 × 4 matrix besides the weight itself, d(loss)/dx a 2 × 3 one besides x
  expect(shapes.filter((shape) => shape === "4,4")).toHaveLength(1);
  expect(shapes.filter((shape) => shape === "2,3")).toHaveLength(1);
});

it("adds up what reaches a parameter on two ways", () => {
  const scale = parameter("scale", [], { trainable: true });
  const { gradients } = gradient(mul(scale, mul(scale, scale)), [scale]);
  const [[value], [slope]] = valuesOf([scale, gradients[0]!]) as [[number], [number]];
  expect(slope).toBeCloseTo(3 * value ** 2, 14);
});

it("gives zeros where no way leads to, or only a stopped one", () => {
  const other = parameter("other", [2], { trainable: true });
  const { gradients } = gradient(sum(mul(w, stopGradient(w))), [other, w]);
  const [zeros, dw, values] = valuesOf([...gradients, w]);
  expect(zeros).toEqual([0, 0]);
  expect(dw).toEqual(values);
});

it("refuses a loss that is no scalar, an op without a gradient, and two nodes of one parameter", () => {
  expect(() => gradient(linear(x, w), [w])).toThrow(/scalar loss, got shape \[2, 4\]/);
  expect(() => gradient(sum(less(w, w)), [w])).toThrow(/less has neither a gradient/);
  const twin = parameter("w", [4, 3], { trainable: true });
  expect(() => gradient(sum(mul(w, twin)), [w, twin])).toThrow(/got two of w/);
});
