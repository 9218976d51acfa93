import { expect, it } from "vitest";
import { add } from "../ops/add.ts";
import { input, parameter } from "../ops/leaf.ts";
import { topological } from "./graph.ts";
import { rewrite } from "./rewrite.ts";
import { verify } from "./verify.ts";

it("lists every fault of a graph", () => {
  const x = input("x", [2]);
  const sum = add(x, x);
  const crooked = { ...sum, shape: [1.5] };
  const alone = { ...sum, inputs: [x] };
  verify([sum]);
  expect(() => {
    verify([crooked, alone, parameter("x", [3])]);
  }).toThrow(
    /add has shape \[1\.5\]; add is f32 \[1\.5\] where its inputs give f32 \[2\]; expected add to get a, b, got 1 inputs; x is input f32 \[2\] and parameter f32 \[3\]/,
  );
});

it("finds a node whose input a pass replaced by one of another shape or dtype", () => {
  const y = add(input("a", [2, 3]), input("b", [3]));
  const wider = { ...y, inputs: [input("a", [4, 3]), y.inputs[1]!] };
  const mixed = { ...y, inputs: [y.inputs[0]!, input("b", [3], "i64")] };
  expect(() => {
    verify([wider]);
  }).toThrow(/add is f32 \[2, 3\] where its inputs give f32 \[4, 3\]/);
  expect(() => {
    verify([mixed]);
  }).toThrow(/expected add to get values of one dtype, got a f32, b i64/);
});

it("finds a node that depends on itself", () => {
  const inner = add(input("a", [2]), input("b", [2]));
  const outer = add(inner, input("c", [2]));
  (inner as { inputs: unknown }).inputs = [outer, inner.inputs[1]];
  expect(() => {
    verify([outer]);
  }).toThrow(/add \[2\] depends on itself/);
});

it("holds a value of as many numbers as its shape", () => {
  const value = { dtype: "f32", shape: [2], data: new Float32Array(2) } as const;
  const node = { ...input("x", [3]), value };
  expect(() => {
    verify([node]);
  }).toThrow(/input of shape \[3\] holds 2 values/);
});

it("loses the nodes that a rewrite leaves without a reader", () => {
  const [x, y] = [input("x", [2]), input("y", [2])];
  const roots = rewrite([add(add(x, y), x)], (node) => (node.inputs.includes(y) ? x : undefined));
  expect(topological(roots).map(({ name, op }) => name ?? op.name)).toEqual(["x", "add"]);
});
