import { expect, it } from "vitest";
import { largestDifference, valuesOf } from "../../test/support/values.ts";
import type { Node } from "../ir/node.ts";
import { print } from "../ir/print.ts";
import { add } from "../ops/add.ts";
import { exp } from "../ops/exp.ts";
import { constant, input, literal, parameter } from "../ops/leaf.ts";
import { mul } from "../ops/mul.ts";
import { reduceSum } from "../ops/reduce-sum.ts";
import { sin } from "../ops/sin.ts";
import { tensor } from "../tensor/tensor.ts";
import { cse } from "./cse.ts";

const x = (): Node => input("x", [3]);
const again = (node: Node): Node => ({ ...node, phase: "recompute" });

it("merges the same op on the same inputs, leaves included", () => {
  const before = add(mul(exp(x()), constant(2)), exp(mul(x(), constant(2))));
  const roots = [before, mul(exp(x()), constant(2))];
  expect(print({ y: roots[0]!, z: roots[1]! })).toMatchInlineSnapshot(`
    "%x = input() f32 [3]
    %1 = exp(%x) f32 [3]
    %2 = constant() {value: 2} f32 []
    %3 = mul(%1, %2) f32 [3]
    %x = input() f32 [3]
    %5 = constant() {value: 2} f32 []
    %6 = mul(%x, %5) f32 [3]
    %7 = exp(%6) f32 [3]
    %8 = add(%3, %7) f32 [3]
    %x = input() f32 [3]
    %10 = exp(%x) f32 [3]
    %11 = constant() {value: 2} f32 []
    %12 = mul(%10, %11) f32 [3]
    → y = %8
    → z = %12"
  `);
  const after = cse(roots);
  expect(print({ y: after[0]!, z: after[1]! })).toMatchInlineSnapshot(`
    "%x = input() f32 [3]
    %1 = exp(%x) f32 [3]
    %2 = constant() {value: 2} f32 []
    %3 = mul(%1, %2) f32 [3]
    %4 = mul(%x, %2) f32 [3]
    %5 = exp(%4) f32 [3]
    %6 = add(%3, %5) f32 [3]
    → y = %6
    → z = %3"
  `);
  expect(largestDifference(valuesOf(roots), valuesOf(after))).toBe(0);
});

it("keeps apart what differs in op, attributes, dtype, name or kind of leaf", () => {
  const matrix = input("m", [2, 2]);
  const different = [
    exp(x()),
    sin(x()),
    exp(input("y", [3])),
    exp(parameter("x", [3])),
    reduceSum(matrix, { axes: [0] }),
    reduceSum(matrix, { axes: [1] }),
    constant(1),
    constant(1, [], "f64"),
    constant(1, [2]),
    constant(Infinity),
    constant(-Infinity),
    constant(NaN),
    constant(0),
    constant(-0),
  ];
  expect(new Set(cse(different)).size).toBe(different.length);
});

it("merges literals by their values", () => {
  const table = (values: number[]): Node => literal(tensor("f32", [2], Float32Array.from(values)));
  const [a, b, c] = cse([table([1, 2]), table([1, 2]), table([1, 3])]);
  expect(a).toBe(b);
  expect(c).not.toBe(a);
});

it("never merges a recomputed node with the first computation, but with its own like", () => {
  const [first, second, third, user] = cse([
    exp(x()),
    again(exp(x())),
    again(exp(x())),
    add(exp(x()), again(exp(x()))),
  ]);
  expect(second).not.toBe(first);
  expect(third).toBe(second);
  expect(user!.inputs).toEqual([first, second]);
});
