import { expect, it } from "vitest";
import { createOnnxEngine } from "../src/backends/onnx/engine.ts";
import { createDecoder } from "../src/generate/decoder.ts";
import { contextOf } from "../src/models/config.ts";
import { decodeGraph } from "../src/train/plan.ts";
import { planOf } from "./support/plan.ts";
import { tinyModel } from "./support/tiny.ts";

/** Decodes `rows` of prompts of a model with 40 learned positions, appending the columns of `more`. */
async function decode(
  rows: readonly (readonly number[])[],
  more: readonly (readonly (number | undefined)[])[],
): Promise<Float32Array> {
  const { config, weights } = await tinyModel("gpt2");
  const engine = createOnnxEngine({ weights, threads: 1 });
  const plan = planOf(config, { sites: new Map() });
  const decoder = createDecoder(engine, (shape) => decodeGraph(plan, shape), {
    context: contextOf(config),
  });
  let logits = await decoder.start(rows);
  for (const ids of more) logits = await decoder.next(ids);
  await decoder.dispose();
  await engine.dispose();
  return logits.at(-1)!;
}

it("goes on with one row of a batch when another has filled the model's context", async () => {
  const long = Array.from({ length: 38 }, (_, t) => (5 * t + 1) % 128);
  const more = [7, 11, 2, 90, 41];
  const want = await decode([[3, 9]], more.map((id) => [id])); // prettier-ignore
  const got = await decode([long, [3, 9]], more.map((id, i) => [i < 2 ? 1 : undefined, id])); // prettier-ignore
  expect(Math.max(...got.map((x, i) => Math.abs(x - want[i]!)))).toBeLessThan(1e-5);
});
