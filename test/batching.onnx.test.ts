import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { loadModel, lora, type Model, train, type TrainOptions } from "../src/index.ts";

let root: string;
let data: string;
let model: Model;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "lorikeet-batching-"));
  data = join(root, "eight.jsonl");
  const chats = await readFile("examples/lorikeet-chat.jsonl", "utf8");
  await writeFile(data, chats.split("\n").slice(0, 8).join("\n")); // of unequal lengths
  model = await loadModel("storyteller-6m");
});
afterAll(async () => {
  await model.dispose();
  await rm(root, { recursive: true });
});

/** Loss and gradient norm of each of two steps over all eight samples. */
async function numbersOf(options: Partial<TrainOptions>): Promise<number[]> {
  const run = train(model, {
    ...{ data, lora: lora({ r: 4 }), maxSteps: 2, learningRate: 5e-3, threads: 1 },
    ...options,
  });
  const numbers: number[] = [];
  for await (const event of run)
    if (event.type === "step") numbers.push(event.loss, event.gradNorm);
  return numbers;
}

test("whole, accumulated and packed batches train alike, within 1e-5", async () => {
  const whole = await numbersOf({ batchSize: 8 });
  expect(whole).toHaveLength(4);
  for (const options of [
    { batchSize: 3, gradientAccumulationSteps: 3 }, // the last batch is smaller
    { batchSize: 8, packing: true, maxLength: 256 }, // all in one row
    { batchSize: 1, gradientAccumulationSteps: 8, packing: true, maxLength: 128 },
  ]) {
    const got = await numbersOf(options);
    for (const [i, value] of whole.entries())
      expect(Math.abs(got[i]! - value), JSON.stringify(options)).toBeLessThan(1e-5 * value);
  }
}, 300_000);
