import type { Adapter } from "../../src/adapter/adapter.ts";
import { trainedAdapter } from "../../src/adapter/trained-adapter.ts";
import type { Model } from "../../src/api/model.ts";
import { convert } from "../../src/tensor/convert.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { stepShape, trainableParameters, trainingGraph } from "../../src/train/plan.ts";

/** `start`, the adapter of `model`, after some steps on one batch at a rate that moves everything, and their losses. */
export async function trainSteps(
  model: Model,
  start: Adapter,
  feeds: Readonly<Record<string, Tensor>>,
  steps: number,
): Promise<{ losses: number[]; adapter: Adapter }> {
  const engine = await model.openEngine();
  const graph = trainingGraph(model.plan, { ...stepShape(feeds), hasSegments: false });
  const program = await engine.compile(graph);
  const losses: number[] = [];
  for (let step = 1; step <= steps; step++) {
    losses.push(Number((await program.run(feeds))["loss"]!.data[0]));
    const rate = { learningRate: 1e-2, betas: [0.9, 0.999] as const, eps: 1e-8 };
    await engine.applyGradients({ step, ...rate, weightDecay: 0, maxGradNorm: 1 });
  }
  const names = new Set(trainableParameters(model.plan).map(({ name }) => name!));
  const read = async (name: string): Promise<Tensor> => convert(await engine.get(name), "f32");
  const adapter = await trainedAdapter(start, model.base, { names, read });
  await engine.dispose();
  return { losses, adapter };
}
