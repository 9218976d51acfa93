import { expect, it } from "vitest";
import type { OnnxNode } from "./proto.ts";
import { joinViews } from "./views.ts";

const node = (opType: string, inputs: string[], output: string): OnnxNode => ({
  ...{ opType, domain: "", name: output, inputs, outputs: [output], attributes: {} },
});

it("reshapes once what is reshaped again, and keeps what is read", () => {
  const nodes = [
    node("Relu", ["x"], "a"),
    node("Reshape", ["a", "#1"], "b"),
    node("Reshape", ["b", "#2"], "c"),
    node("Reshape", ["c", "#3"], "d"),
    node("Exp", ["c"], "e"),
    node("Neg", ["a"], "unread"),
  ];
  expect(joinViews(nodes, new Set(["d", "e"]))).toEqual([
    nodes[0],
    node("Reshape", ["a", "#2"], "c"),
    node("Reshape", ["a", "#3"], "d"),
    nodes[4],
  ]);
});
