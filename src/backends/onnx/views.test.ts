import { expect, it } from "vitest";
import type { OnnxNode } from "./proto.ts";
import { joinViews } from "./views.ts";

const node = (opType: string, inputs: string[], output: string): OnnxNode => ({
  ...{ opType, domain: "", name: output, inputs, outputs: [output], attributes: {} },
});

it("reshapes once or not at all what is reshaped again, and keeps what is read", () => {
  const nodes = [
    node("Relu", ["x"], "a"),
    node("Reshape", ["a", "6"], "b"),
    node("Reshape", ["b", "3,2"], "c"),
    node("Reshape", ["c", "6"], "d"),
    node("Exp", ["c"], "e"),
    node("Reshape", ["c", "2,3"], "f"),
    node("Add", ["f", "e"], "g"),
    node("Neg", ["a"], "unread"),
  ];
  const shapes = new Map([["a", [2, 3]]]);
  const lists = new Map([
    ["6", [6]],
    ["3,2", [3, 2]],
    ["2,3", [2, 3]],
  ]);
  expect(joinViews({ nodes, shapes, lists }, new Set(["d", "g"]))).toEqual([
    nodes[0],
    node("Reshape", ["a", "3,2"], "c"),
    node("Reshape", ["a", "6"], "d"),
    nodes[4],
    node("Add", ["a", "e"], "g"),
  ]);
});
