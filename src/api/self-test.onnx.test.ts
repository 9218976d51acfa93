import { expect, it } from "vitest";
import type { Engine, WeightSource } from "../backends/backend.ts";
import { createOnnxEngine } from "../backends/onnx/engine.ts";
import { referenceEngine } from "../backends/reference/engine.ts";
import { tensor } from "../tensor/tensor.ts";
import { selfTest } from "./self-test.ts";

it("passes an engine that computes as the reference does", async () => {
  await selfTest((weights) => createOnnxEngine({ weights, threads: 1 }));
});

it("refuses an engine whose norms divide by something else, naming a gradient", async () => {
  const wrong = (weights: WeightSource): Engine => ({
    ...referenceEngine({
      ...weights,
      read: async (name) => {
        const weight = await weights.read(name);
        if (name !== "model.layers.1.input_layernorm.weight") return weight;
        const data = (weight.data as Float32Array).map((value) => value * 1.01);
        return tensor("f32", weight.shape, data);
      },
    }),
    name: "onnx-wrong",
  });
  await expect(selfTest(wrong)).rejects.toMatchObject({ code: "engine-self-test" });
});
