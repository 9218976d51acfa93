import { expect, it } from "vitest";
import { largestDifference, valuesOf } from "../../test/support/values.ts";
import type { Node } from "../ir/node.ts";
import { print } from "../ir/print.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { broadcastTo } from "../ops/broadcast-to.ts";
import { constant, input } from "../ops/leaf.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { sqrt } from "../ops/sqrt.ts";
import { slice } from "../ops/slice.ts";
import { stopGradient } from "../ops/stop-gradient.ts";
import { transpose } from "../ops/transpose.ts";
import { dropMarks, fold } from "./fold.ts";

const x = input("x", [2, 3]);

it("computes constants, and removes what changes nothing", () => {
  const scale = mul(constant(0.5), sqrt(constant(4)));
  const y = add(
    mul(transpose(transpose(x, { perm: [1, 0] }), { perm: [1, 0] }), scale),
    constant(0),
  );
  const z = mul(reshape(reshape(x, { shape: [6] }), { shape: [3, 2] }), sqrt(constant(9)));
  expect(print({ y, z })).toMatchInlineSnapshot(`
    "%x = input() f32 [2, 3]
    %1 = transpose(%x) {perm: [1, 0]} f32 [3, 2]
    %2 = transpose(%1) {perm: [1, 0]} f32 [2, 3]
    %3 = constant() {value: 0.5} f32 []
    %4 = constant() {value: 4} f32 []
    %5 = sqrt(%4) f32 []
    %6 = mul(%3, %5) f32 []
    %7 = mul(%2, %6) f32 [2, 3]
    %8 = constant() {value: 0} f32 []
    %9 = add(%7, %8) f32 [2, 3]
    %10 = reshape(%x) {shape: [6]} f32 [6]
    %11 = reshape(%10) {shape: [3, 2]} f32 [3, 2]
    %12 = constant() {value: 9} f32 []
    %13 = sqrt(%12) f32 []
    %14 = mul(%11, %13) f32 [3, 2]
    → y = %9
    → z = %14"
  `);
  const folded = fold([y, z]);
  expect(print({ y: folded[0]!, z: folded[1]! })).toMatchInlineSnapshot(`
    "%x = input() f32 [2, 3]
    %1 = reshape(%x) {shape: [3, 2]} f32 [3, 2]
    %2 = constant() {value: 3} f32 []
    %3 = mul(%1, %2) f32 [3, 2]
    → y = %x
    → z = %3"
  `);
  expect(largestDifference(valuesOf([y, z]), valuesOf(folded))).toBe(0);
});

it("sees through moves there and back", () => {
  const there = reshape(x, { shape: [6] });
  expect(fold([reshape(there, { shape: [2, 3] })])).toEqual([x]);
  expect(fold([broadcastTo(x, { shape: [2, 3] })])).toEqual([x]);
  expect(fold([transpose(x, { perm: [0, 1] })])).toEqual([x]);
  expect(fold([slice(x, { axis: 1, start: 0, end: 3 })])).toEqual([x]);
  const row = input("row", [1, 2, 1, 3]);
  const moved = reshape(row, { shape: [2, 1, 1, 3] });
  expect(fold([transpose(row, { perm: [1, 0, 2, 3] })])).toEqual([moved]);
  expect(fold([broadcastTo(constant(2), { shape: [2, 3] })])).toEqual([constant(2, [2, 3])]);
});

it.each([
  ["a factor that widens x", mul(x, constant(1, [4, 2, 3]))],
  ["a sum that widens x", add(constant(0, [1, 2, 3]), x)],
  ["another factor", mul(x, constant(2))],
  ["a part", slice(x, { axis: 1, start: 0, end: 2 })],
  ["a rotation of three axes, twice", rotated(rotated(input("cube", [2, 3, 4])))],
] as const)("keeps %s", (_, node) => {
  const [folded] = fold([node]) as [Node];
  expect(folded).toBe(node);
});

it("keeps the mark of recomputation where it joins two moves", () => {
  const again = (node: Node): Node => ({ ...node, phase: "recompute" });
  const there = again(reshape(x, { shape: [6] }));
  const [folded] = fold([again(reshape(there, { shape: [3, 2] }))]) as [Node];
  expect(folded.inputs).toEqual([x]);
  expect(folded.phase).toBe("recompute");
});

it("drops boundaries and gradient stops", () => {
  const marked = boundary(add(stopGradient(boundary(x)), constant(1)));
  expect(print({ y: dropMarks([marked])[0]! })).toMatchInlineSnapshot(`
    "%x = input() f32 [2, 3]
    %1 = constant() {value: 1} f32 []
    %2 = add(%x, %1) f32 [2, 3]
    → y = %2"
  `);
});

function rotated(node: Node): Node {
  return transpose(node, { perm: [1, 2, 0] });
}
