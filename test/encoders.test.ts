import { describe, expect, it } from "vitest";
import { interpret } from "../src/backends/reference/interpret.ts";
import { verify } from "../src/ir/verify.ts";
import { classificationLoss } from "../src/models/encoder.ts";
import { encoderModel } from "../src/models/registry.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { classificationFeeds, encoderFixtures } from "./support/batches.ts";
import { binding, type Fixture, fixture } from "./support/fixtures.ts";

/** Every result of the encoder on the fixture's batch, in the order hidden, mean, logits, loss, pooled. */
function results(checkpoint: Fixture): Float64Array[] {
  const { config, expected } = checkpoint;
  const [batch, length] = expected.get("input_ids")!.shape as [number, number];
  const model = encoderModel(config, { batch, length });
  const loss = classificationLoss(model.logits, config);
  const roots = [model.hidden, model.mean, model.logits, loss];
  if (expected.has("pooler_output")) roots.push(model.pooled!);
  verify(roots);
  const bind = binding(classificationFeeds(expected), checkpoint);
  return interpret(roots, bind).map(({ data }) => data);
}

function expectClose(got: Float64Array | undefined, want: Tensor, mask?: readonly number[]): void {
  expect(got).toHaveLength(want.data.length);
  const width = got!.length / (mask?.length ?? 1);
  toFloat64(want).forEach((value, i) => {
    if (mask?.[Math.floor(i / width)] !== 0) expect(Math.abs(value - got![i]!)).toBeLessThan(1e-4);
  });
}

describe.each(encoderFixtures)("%s: what transformers gives, float32", (name) => {
  it("hidden states, pooler output, logits and loss to 1e-4", async () => {
    const checkpoint = await fixture(name);
    const { expected } = checkpoint;
    const [hidden, , logits, loss, pooled] = results(checkpoint);
    const mask = [...expected.get("attention_mask")!.data].map(Number);
    expectClose(hidden, expected.get("last_hidden_state")!, mask);
    expectClose(logits, expected.get("logits")!);
    expectClose(loss, expected.get("loss")!);
    expect(pooled !== undefined).toBe(name === "bert");
    if (pooled) expectClose(pooled, expected.get("pooler_output")!);
  });

  it("the mean embedding leaves padding out", async () => {
    const checkpoint = await fixture(name);
    const want = toFloat64(checkpoint.expected.get("last_hidden_state")!);
    const [, mean] = results(checkpoint);
    const [B, T, C] = checkpoint.expected.get("last_hidden_state")!.shape as [
      number,
      number,
      number,
    ];
    const counts = [17, 11];
    for (let b = 0; b < B; b++)
      for (let c = 0; c < C; c++) {
        let sum = 0;
        for (let t = 0; t < counts[b]!; t++) sum += want[(b * T + t) * C + c]!;
        expect(Math.abs(mean![b * C + c]! - sum / counts[b]!)).toBeLessThan(1e-4);
      }
  });
});

it("modernbert: reads the rotary fields of its first checkpoints", async () => {
  const checkpoint = await fixture("modernbert");
  const { rope_parameters: _, layer_types: _types, ...rest } = checkpoint.config;
  const config = { ...rest, global_rope_theta: 160000, local_rope_theta: 10000 };
  const [, , logits] = results({ ...checkpoint, config });
  expectClose(logits, checkpoint.expected.get("logits")!);
});

it("names the encoders that are supported", () => {
  expect(() => encoderModel({ model_type: "bart" }, { batch: 1, length: 1 })).toThrow(
    /bert, roberta, modernbert.*got bart/,
  );
});

it("refuses a loss for other problems than one label of several", async () => {
  const { config } = await fixture("bert");
  const { logits } = encoderModel(config, { batch: 1, length: 4 });
  expect(() => classificationLoss(logits, { ...config, problem_type: "regression" })).toThrow(
    /one of at least 2 labels.*"regression"/,
  );
});
