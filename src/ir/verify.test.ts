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
    /add has shape \[1\.5\]; add takes .*, got 1 inputs; x is input f32 \[2\] and parameter f32 \[3\]/,
  );
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
