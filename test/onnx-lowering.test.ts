/** @file What the ONNX engine makes of a training step of each kind of model, before it is written as ONNX. */
import { expect, it } from "vitest";
import { lowerGraph } from "../src/backends/onnx/lower.ts";
import { rootsOf, topological } from "../src/ir/graph.ts";
import type { Node } from "../src/ir/node.ts";
import { verify } from "../src/ir/verify.ts";
import { isQuantizable, type Storage } from "../src/passes/quantize.ts";
import { trainingGraph } from "../src/train/plan.ts";
import { causalFixtures, fixture } from "./support/fixtures.ts";
import { planOf } from "./support/plan.ts";

const shape = { batch: 2, length: 6, rows: 5, hasSegments: true };

it.each(causalFixtures.filter((name) => !name.includes("-")))(
  "%s: well-formed, and nothing computed twice is merged",
  async (name) => {
    const { config } = await fixture(name);
    const graph = trainingGraph(planOf(config), shape);
    verify(rootsOf(graph));
    const again = (roots: readonly Node[]): number =>
      topological(roots).filter(({ phase }) => phase === "recompute").length;
    for (const storage of ["f32", "bf16", "int8", "nf4"] as const) {
      const choose = ({ name, shape }: Node): Storage =>
        isQuantizable(name!, shape) ? storage : "f32";
      const lowered = rootsOf(lowerGraph(graph, "cpu", () => choose));
      verify(lowered);
      expect(again(lowered)).toBeGreaterThan(again(rootsOf(graph)) / 2);
    }
  },
);
