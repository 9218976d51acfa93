import { describe, expect, it } from "vitest";
import { Random } from "../tensor/random.ts";
import { type Batch, bucket, collate } from "./batch.ts";
import { planEpoch, planEvaluation } from "./epoch.ts";
import { exampleWriter, type ExampleStore } from "./example-store.ts";
import { type Example, supervisedTokens } from "./examples.ts";
import { createLoader, evaluationBatches, type LoaderOptions } from "./loader.ts";
import type { DataWindow } from "./windows.ts";

const example = (ids: number[], mask: number[]): Example => ({
  inputIds: Int32Array.from(ids),
  labelMask: Uint8Array.from(mask),
});

/** Samples of 2 to `longest` tokens whose ids tell sample and place. */
function randomExamples(count: number, longest = 40): Example[] {
  const random = new Random(5);
  return Array.from({ length: count }, (_, sample) => {
    const length = 2 + random.integer(longest - 1);
    const mask = Array.from({ length }, (_, t) => (t > 0 && random.uniform() < 0.6 ? 1 : 0));
    mask[length - 1] = 1;
    return example(
      Array.from({ length }, (_, t) => sample * 100 + t),
      mask,
    );
  });
}

async function storeOf(examples: readonly Example[]): Promise<ExampleStore> {
  const writer = exampleWriter();
  for (const [i, each] of examples.entries()) await writer.append(each, i);
  return writer.finish();
}

const options: LoaderOptions = {
  batchSize: 4,
  accumulation: 3,
  maxLength: 48,
  lengthMultiple: 16,
  padId: 9999,
  packing: false,
  seed: 1,
};

const numbers = (batch: Batch, name: string): number[] => Array.from(batch[name]!.data, Number);
const all = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

async function take(windows: AsyncIterable<DataWindow>, count: number): Promise<DataWindow[]> {
  const out: DataWindow[] = [];
  for await (const window of windows) if (out.push(window) === count) break;
  return out;
}

/** Every target with the tokens that it may see: what the loss of a batch depends on. */
function contexts(batch: Batch): string[] {
  const [, T] = batch["input_ids"]!.shape as [number, number];
  const [ids, positions, rows, targets, weights] = [
    "input_ids",
    "position_ids",
    "loss_rows",
    "targets",
    "loss_weights",
  ].map((name) => numbers(batch, name)) as [number[], number[], number[], number[], number[]];
  const segments = batch["segments"] ? numbers(batch, "segments") : undefined;
  return rows.flatMap((row, i) => {
    if (weights[i] === 0) return [];
    const start = Math.floor(row / T) * T;
    const seen = all(row - start + 1)
      .map((t) => start + t)
      .filter((at) => !segments || segments[at] === segments[row]);
    return `${seen.map((at) => `${ids[at]}@${positions[at]}`).join(" ")} -> ${targets[i]}`;
  });
}

describe("collate", () => {
  const a = example([1, 2, 3], [0, 0, 1]);
  const b = example([4, 5, 6, 7], [0, 1, 0, 1]);

  it("pads rows to one length and lists where losses are taken", () => {
    const batch = collate([[a], [b]], { ...options, batchSize: 3, lengthMultiple: 6 }, 0.5);
    expect(numbers(batch, "input_ids")).toEqual(
      [[1, 2, 3, 9999, 9999, 9999], [4, 5, 6, 7, 9999, 9999], Array(6).fill(9999)].flat(),
    );
    expect(numbers(batch, "position_ids").slice(0, 10)).toEqual([0, 1, 2, 0, 0, 0, 0, 1, 2, 3]);
    expect(batch["segments"]).toBeUndefined();
    expect(numbers(batch, "loss_rows")).toEqual([1, 6, 8]);
    expect(numbers(batch, "targets")).toEqual([3, 5, 7]);
    expect(numbers(batch, "loss_weights")).toEqual([0.5, 0.5, 0.5]);
    const kinds = Object.values(batch).map(({ dtype, shape }) => `${dtype} ${shape.join("x")}`);
    expect(kinds).toEqual(["i64 3x6", "i64 3x6", "i64 3", "i64 3", "f32 3"]);
  });

  it("packs samples with positions, segments and no loss across the seam", () => {
    const shape = { ...options, batchSize: 1, packing: true, lengthMultiple: 8, lossRowSteps: 2 };
    const batch = collate([[a, b]], shape, 1);
    expect(numbers(batch, "input_ids")).toEqual([1, 2, 3, 4, 5, 6, 7, 9999]);
    expect(numbers(batch, "position_ids")).toEqual([0, 1, 2, 0, 1, 2, 3, 0]);
    expect(numbers(batch, "segments")).toEqual([0, 0, 0, 1, 1, 1, 1, 2]);
    expect(numbers(batch, "loss_rows")).toEqual([1, 3, 5, 0]);
    expect(numbers(batch, "targets")).toEqual([3, 5, 7, 0]);
    expect(numbers(batch, "loss_weights")).toEqual([1, 1, 1, 0]);
  });

  it("never takes the first token of a sample as a target, even when it is marked", () => {
    const marked = example([1, 2], [1, 1]);
    const batch = collate([[marked, marked]], { ...options, batchSize: 1, packing: true }, 1);
    expect(contexts(batch)).toEqual(["1@0 -> 2", "1@0 -> 2"]);
  });

  it("rounds sizes up to few buckets", () => {
    expect([1, 64, 65, 100, 900].map((n) => bucket(n, 64, 1000))).toEqual([64, 64, 128, 128, 960]);
    expect(bucket(990, 64, 1000)).toBe(1000);
    const shapes = new Set(
      randomExamples(200).map((each) => {
        const batch = collate([[each]], options, 1);
        expect(batch["loss_rows"]!.shape[0]).toBeGreaterThanOrEqual(supervisedTokens(each));
        return `${batch["input_ids"]!.shape[1]},${batch["loss_rows"]!.shape[0]}`;
      }),
    );
    expect(shapes.size).toBeLessThanOrEqual(6);
  });
});

describe("planEpoch", () => {
  const examples = randomExamples(1000);
  const lengths = examples.map(({ inputIds }) => inputIds.length);

  it.each([true, false])("has every sample once (packing: %s)", (packing) => {
    const plan = planEpoch(all(1000), lengths, { ...options, packing }, 3);
    expect(plan.flat(2).sort((a, b) => a - b)).toEqual(all(1000));
    for (const batch of plan) expect(batch.length).toBeLessThanOrEqual(4);
    for (const row of plan.flat())
      expect(row.reduce((sum, sample) => sum + lengths[sample]!, 0)).toBeLessThanOrEqual(48);
  });

  it("is the same for the same seed and pass, and another for others", () => {
    const plan = (seed: number, epoch: number): unknown =>
      planEpoch(all(1000), lengths, { ...options, seed }, epoch);
    expect(plan(1, 2)).toEqual(plan(1, 2));
    expect(plan(1, 2)).not.toEqual(plan(1, 3));
    expect(plan(1, 2)).not.toEqual(plan(2, 2));
  });

  it("groups like lengths, so that little is padding, and starts with the longest", () => {
    const plan = planEpoch(all(1000), lengths, options, 0);
    const longest = (batch: readonly (readonly number[])[]): number =>
      Math.max(...batch.map(([sample]) => lengths[sample!]!));
    const padded = plan.reduce((sum, batch) => sum + batch.length * longest(batch), 0);
    expect(padded / lengths.reduce((a, b) => a + b)).toBeLessThan(1.05);
    expect(longest(plan[0]!)).toBe(Math.max(...lengths));
    expect(plan.slice(1).map(longest)).not.toEqual(
      plan
        .slice(1)
        .map(longest)
        .sort((a, b) => b - a),
    );
  });

  it("packs rows to at least 95 %", () => {
    const plan = planEpoch(all(1000), lengths, { ...options, packing: true }, 0);
    const tokens = lengths.reduce((a, b) => a + b);
    expect(tokens / (plan.flat().length * 48)).toBeGreaterThan(0.95);
  });

  it("takes evaluation samples in one order", () => {
    for (const packing of [true, false]) {
      const plan = planEvaluation([3, 1, 2], lengths, { ...options, packing });
      expect(plan.flat(2).sort()).toEqual([1, 2, 3]);
      expect(planEvaluation([3, 1, 2], lengths, { ...options, packing })).toEqual(plan);
    }
  });
});

describe("createLoader", () => {
  const examples = randomExamples(101);

  it("gives the same targets with the same contexts packed and padded", async () => {
    const store = await storeOf(examples);
    const expected = examples.flatMap(({ inputIds, labelMask }) =>
      [...inputIds].flatMap((id, t) => {
        const seen = [...inputIds.slice(0, t)].map((each, i) => `${each}@${i}`);
        return labelMask[t] === 1 && t > 0 ? [`${seen.join(" ")} -> ${id}`] : [];
      }),
    );
    for (const packing of [true, false]) {
      const loader = createLoader(store, all(101), { ...options, packing });
      const windows = await take(loader.windows(), loader.windowsIn(1));
      const got = windows.flatMap(({ batches }) => batches.flatMap(contexts));
      expect(got.sort()).toEqual([...expected].sort());
    }
  });

  it("weights each target by the targets of its window", async () => {
    const loader = createLoader(await storeOf(examples), all(101), options);
    for (const window of await take(loader.windows(), loader.windowsIn(2))) {
      const weights = window.batches.flatMap((batch) => numbers(batch, "loss_weights"));
      const used = weights.filter((weight) => weight > 0);
      expect(new Set(used)).toEqual(new Set([Math.fround(1 / used.length)]));
      expect(window.tokens).toBe(
        window.batches.flatMap((batch) => numbers(batch, "input_ids")).filter((id) => id !== 9999)
          .length,
      );
      for (const batch of window.batches) expect(batch["input_ids"]!.shape[0]).toBe(4);
    }
  });

  it.each([true, false])(
    "continues anywhere with the same bytes (packing: %s)",
    async (packing) => {
      const store = await storeOf(examples);
      const load = (): ReturnType<typeof createLoader> =>
        createLoader(store, all(101), { ...options, packing });
      const count = load().windowsIn(3);
      const whole = await take(load().windows(), count);
      expect(whole.at(-1)!.epoch).toBe(3);
      expect(whole.map(({ epoch }) => epoch)).toEqual(
        whole.map(({ epoch }) => epoch).sort((a, b) => a - b),
      );
      for (const stop of [1, 4, load().windowsIn(1), count - 1]) {
        const cursor: unknown = JSON.parse(JSON.stringify(whole[stop - 1]!.cursor));
        expect(await take(load().windows(cursor), count - stop)).toEqual(whole.slice(stop));
      }
    },
  );

  it("counts windows of part of a pass", async () => {
    const loader = createLoader(await storeOf(examples), all(101), options);
    expect(loader.windowsIn(1)).toBe(Math.ceil(Math.ceil(101 / 4) / 3));
    expect(loader.windowsIn(2)).toBe(2 * loader.windowsIn(1));
    expect(loader.windowsIn(0.5)).toBe(Math.ceil(loader.windowsIn(1) / 2));
    expect(loader.windowsIn(1.001)).toBe(loader.windowsIn(1) + 1);
  });

  it("refuses to continue with other samples, batches or another seed", async () => {
    const [window] = await take(
      createLoader(await storeOf(examples), all(101), options).windows(),
      1,
    );
    const other = examples.with(7, example([1, 2], [0, 1]));
    for (const [data, changed] of [
      [other, options],
      [examples, { ...options, seed: 2 }],
      [examples, { ...options, batchSize: 2 }],
      [examples, { ...options, packing: true }],
    ] as const) {
      const windows = createLoader(await storeOf(data), all(101), changed).windows(window!.cursor);
      await expect(windows.next()).rejects.toMatchObject({ code: "data-changed" });
    }
  });

  it("evaluates every target once, with weights that add up to 1", async () => {
    const store = await storeOf(examples);
    for (const packing of [true, false]) {
      const batches: Batch[] = [];
      for await (const batch of evaluationBatches(store, [5, 3, 99], { ...options, packing }))
        batches.push(batch);
      const targets = [5, 3, 99].reduce((sum, i) => sum + supervisedTokens(examples[i]!), 0);
      const weights = batches.flatMap((batch) => numbers(batch, "loss_weights"));
      expect(weights.filter((weight) => weight > 0)).toHaveLength(targets);
      expect(weights.reduce((a, b) => a + b)).toBeCloseTo(1, 6);
    }
  });
});

it("the rows of a batch are named by file and line, or by number", async () => {
  const writer = exampleWriter();
  const places = [
    { file: "a.jsonl", line: 3 },
    { file: "a.jsonl", line: 5 },
    { file: "b.txt", line: 0 },
    undefined,
  ];
  for (const [i, each] of randomExamples(4).entries()) await writer.append(each, i, places[i]);
  const store = await writer.finish();
  expect(all(4).map((i) => store.nameOf(i))).toEqual([
    "a.jsonl:3",
    "a.jsonl:5",
    "b.txt",
    "sample 4",
  ]);
  const loader = createLoader(store, all(4), { ...options, batchSize: 2, accumulation: 2 });
  const [window] = await take(loader.windows(), 1);
  const named = window!.batches.map((batch, number) => {
    const ids = numbers(batch, "input_ids");
    const inBatch = all(4).filter((i) => ids.includes(i * 100));
    return [inBatch.map((i) => store.nameOf(i)).sort(), [...window!.rows![number]!].sort()];
  });
  for (const [wanted, got] of named) expect(got).toEqual(wanted);
});
