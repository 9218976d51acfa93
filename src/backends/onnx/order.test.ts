import { expect, it } from "vitest";
import { leavesLast } from "./order.ts";
import type { OnnxNode } from "./proto.ts";

const node = (output: string, ...inputs: string[]): OnnxNode => ({
  ...{ opType: "Add", domain: "", name: output, inputs, outputs: [output], attributes: {} },
});

it("puts what nothing reads last, the deepest first, and late results after all", () => {
  const nodes = [
    node("a", "x"),
    node("gradient of the last layer", "a"),
    node("loss", "a"),
    node("b", "a"),
    node("c", "b"),
    node("gradient of the first layer", "c"),
  ];
  const order = leavesLast(nodes, new Set(["loss"])).map(({ name }) => name);
  expect(order).toEqual([
    ...["a", "b", "c"],
    // ONNX Runtime starts from the end of the list
    ...["loss", "gradient of the first layer", "gradient of the last layer"],
  ]);
});
