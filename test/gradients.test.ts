import { describe, expect, it } from "vitest";
import { interpret } from "../src/backends/reference/interpret.ts";
import { topological } from "../src/ir/graph.ts";
import type { Node } from "../src/ir/node.ts";
import { verify } from "../src/ir/verify.ts";
import { classificationLoss } from "../src/models/encoder.ts";
import { causalLM, encoderModel } from "../src/models/registry.ts";
import { crossEntropy } from "../src/ops/cross-entropy.ts";
import { gatherRows } from "../src/ops/gather-rows.ts";
import { input, isTrainable } from "../src/ops/leaf.ts";
import { checkpoint as recompute } from "../src/passes/checkpoint.ts";
import { cse } from "../src/passes/cse.ts";
import { gradient } from "../src/passes/gradient.ts";
import { unfreeze } from "../src/passes/unfreeze.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { classificationFeeds, encoderFixtures, nextTokenFeeds } from "./support/batches.ts";
import { binding, causalFixtures, type Fixture, fixture } from "./support/fixtures.ts";

/** The mean next-token loss. */
function causalLoss({ config, expected }: Fixture): Node {
  const [batch, length] = expected.get("input_ids")!.shape as [number, number];
  const model = causalLM(config, { batch, length });
  const R = batch * (length - 1);
  const logits = model.head(gatherRows(model.hidden, input("loss_rows", [R], "i64")));
  return crossEntropy(logits, input("targets", [R], "i64"), input("loss_weights", [R]));
}

function encoderLoss({ config, expected }: Fixture): Node {
  const [batch, length] = expected.get("input_ids")!.shape as [number, number];
  return classificationLoss(encoderModel(config, { batch, length }).logits, config);
}

/** Compares the loss and every gradient that the fixture holds, 1e-4 relative to the gradient's norm. */
function checkGradients(checkpoint: Fixture, frozen: Node, feeds: Record<string, Tensor>): void {
  const { expected } = checkpoint;
  const wanted = [...expected.keys()].filter((key) => key.startsWith("grad."));
  const names = new Set(wanted.map((key) => key.slice("grad.".length)));
  const [loss] = unfreeze([frozen], (name) => names.has(name)) as [Node];
  const params = topological([loss]).filter(isTrainable);
  expect(new Set(params.map(({ name }) => name))).toEqual(names);
  const result = gradient(loss, params);
  const again = recompute(result.loss, result.gradients);
  const roots = cse([result.loss, ...result.gradients, ...again]);
  verify(roots);
  const values = interpret(roots, binding(feeds, checkpoint)).map(({ data }) => data);
  expect(Math.abs(values[0]![0]! - Number(expected.get("loss")!.data[0]))).toBeLessThan(1e-4);
  params.forEach(({ name, shape }, i) => {
    const want = expected.get(`grad.${name!}`)!;
    const got = values[1 + i]!;
    expect(shape).toEqual(want.shape);
    const error = Math.hypot(...toFloat64(want).map((value, j) => value - got[j]!));
    expect(error).toBeLessThan(1e-4 * Math.hypot(...got));
    expect(values[1 + params.length + i]).toEqual(got);
  });
}

describe("gradients of transformers, with and without checkpointing", () => {
  it.each(causalFixtures)("%s", async (name) => {
    const checkpoint = await fixture(name);
    const feeds = nextTokenFeeds(checkpoint.expected.get("input_ids")!);
    checkGradients(checkpoint, causalLoss(checkpoint), feeds);
  });

  it.each(encoderFixtures)("%s", async (name) => {
    const checkpoint = await fixture(name);
    checkGradients(checkpoint, encoderLoss(checkpoint), classificationFeeds(checkpoint.expected));
  });
});
