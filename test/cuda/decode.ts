/** @file Token-by-token decoding with caches on the GPU against the same model run over whole sequences. */
import { cudaEngine } from "../../src/backends/cuda/engine.ts";
import type { Precision } from "../../src/backends/cuda/plan/graph.ts";
import { createDecoder } from "../../src/generate/decoder.ts";
import { decodeGraph, forwardGraph, type TrainPlan } from "../../src/train/plan.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { type Check, expectClose, storyteller } from "./check.ts";

const LIMITS: Readonly<Record<Precision, number>> = { f32: 2e-5, bf16: 3e-2, f16: 6e-3 };

/** Two rows of different lengths, some tokens more than the first bucket of 64 slots holds. */
async function checkDecoding(
  precision: Precision,
  steps: number,
  lengths: readonly number[],
): Promise<string> {
  const { config, source } = await storyteller();
  const plan: TrainPlan = {
    config,
    sites: new Map(),
    trainsWeight: () => false,
    checkpointing: false,
  };
  const engine = cudaEngine(source, { precision });
  const exact = cudaEngine(source, { precision: "f32" });
  const rows = lengths.map((length, b) =>
    Array.from({ length: length + steps }, (_, t) => (t * 37 + b * 101 + 11) % 6000),
  );
  const total = Math.max(...lengths) + steps;
  const whole = await exact.compile(forwardGraph(plan, { batch: rows.length, length: total }));
  const ids = Int32Array.from(
    { length: rows.length * total },
    (_, i) => rows[Math.floor(i / total)]![i % total] ?? 0,
  );
  const positions = Int32Array.from(ids, (_, i) => i % total);
  const shape = [rows.length, total];
  const { logits } = await whole.run({
    input_ids: tensor("i32", shape, ids),
    position_ids: tensor("i32", shape, positions),
  });
  const V = logits!.shape[1]!;
  const decoder = createDecoder(engine, (size) => decodeGraph(plan, size));
  let worst = "";
  for (let step = 0; step <= steps; step++) {
    const got =
      step === 0
        ? await decoder.start(rows.map((row, b) => row.slice(0, lengths[b])))
        : await decoder.next(rows.map((row, b) => row[lengths[b]! + step - 1]!));
    got.forEach((values, b) => {
      const at = (b * total + lengths[b]! + step - 1) * V;
      worst = expectClose(
        `step ${step} row ${b}`,
        tensor("f32", [V], values),
        logits!.data.slice(at, at + V) as Float32Array,
        LIMITS[precision],
      );
    });
  }
  await decoder.dispose();
  await engine.dispose();
  await exact.dispose();
  return worst;
}

export const checks: readonly Check[] = (["f32", "bf16"] as const).flatMap((precision) => [
  {
    name: `decode ${precision} one row over a bucket's end`,
    run: () => checkDecoding(precision, 6, [62]),
  },
  { name: `decode ${precision} two rows`, run: () => checkDecoding(precision, 3, [5, 9]) },
]);
