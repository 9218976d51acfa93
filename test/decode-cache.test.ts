import { describe, expect, it } from "vitest";
import { interpret } from "../src/backends/reference/interpret.ts";
import type { Value } from "../src/ir/rules.ts";
import { verify } from "../src/ir/verify.ts";
import type { Sequence } from "../src/models/causal-lm.ts";
import { causalLM } from "../src/models/registry.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";
import {
  binding,
  causalFixtures,
  type Fixture,
  fixture,
  ints,
  positionsOf,
} from "./support/fixtures.ts";

const SLOTS = 24;
/** Tokens of each row that are in the cache before the decoded one. */
const CACHED = [15, 9] as const;

interface Run {
  readonly logits: Value;
  readonly present: Readonly<Record<string, Value>>;
}

function run(checkpoint: Fixture, sequence: Sequence, feeds: Record<string, Tensor>): Run {
  const model = causalLM(checkpoint.config, sequence);
  const logits = model.head(model.hidden);
  const names = Object.keys(model.present);
  const roots = [logits, ...Object.values(model.present)];
  verify(roots);
  const values = interpret(roots, binding(feeds, checkpoint));
  return {
    logits: values[0]!,
    present: Object.fromEntries(names.map((name, i) => [name, values[i + 1]!])),
  };
}

/** Slot of token `t`: not in order, as in a cache whose slots are used again. */
const slotOf = (t: number): number => (7 * t + 3) % SLOTS;

/** A cache of SLOTS slots with the first CACHED tokens of each row; other slots hold large values. */
function cacheOf(present: Readonly<Record<string, Value>>, length: number): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {};
  for (const [name, { shape, data }] of Object.entries(present)) {
    const width = shape[2]! * shape[3]!;
    const slots = new Float64Array(2 * SLOTS * width).fill(1e3);
    CACHED.forEach((count, row) => {
      for (let t = 0; t < count; t++) {
        const from = (row * length + t) * width;
        slots.set(data.subarray(from, from + width), (row * SLOTS + slotOf(t)) * width);
      }
    });
    const shaped = tensor("f64", [2, SLOTS, shape[2]!, shape[3]!], slots);
    feeds[name.replace("present", "past_key_values")] = shaped;
  }
  const used = CACHED.map(
    (count) => new Map(Array.from({ length: count }, (_, t) => [slotOf(t), t])),
  );
  const place = (i: number): number | undefined => used[Math.floor(i / SLOTS)]!.get(i % SLOTS);
  feeds["cache_segments"] = ints([2, SLOTS], (i) => (place(i) === undefined ? -1 : 0));
  feeds["cache_positions"] = ints([2, SLOTS], (i) => place(i) ?? 0);
  return feeds;
}

describe.each(causalFixtures)("%s", (name) => {
  it("decodes from a cache what the whole run gives, to 1e-9", async () => {
    const checkpoint = await fixture(name);
    const ids = checkpoint.expected.get("input_ids")!;
    const [batch, length] = ids.shape as [number, number];
    const whole = run(
      checkpoint,
      { batch, length, keepsCache: true },
      { input_ids: ids, position_ids: positionsOf(batch, length) },
    );
    expect(Object.keys(whole.present).length).toBeGreaterThan(3);

    const decoded = run(
      checkpoint,
      { batch, length: 1, cacheLength: SLOTS, keepsCache: true },
      {
        input_ids: ints([2, 1], (row) => Number(ids.data[row * length + CACHED[row]!])),
        position_ids: ints([2, 1], (row) => CACHED[row]!),
        segments: ints([2, 1], () => 0),
        ...cacheOf(whole.present, length),
      },
    );
    CACHED.forEach((position, row) => {
      expectRows(decoded.logits, row, whole.logits, row * length + position);
      for (const key of Object.keys(whole.present))
        expectRows(decoded.present[key]!, row, whole.present[key]!, row * length + position);
    });
  });
});

/** Equal row `i` of `got` and row `j` of `want`, where rows are of one token. */
function expectRows(got: Value, i: number, want: Value, j: number): void {
  const size = got.data.length / 2;
  for (let c = 0; c < size; c++)
    expect(Math.abs(got.data[i * size + c]! - want.data[j * size + c]!)).toBeLessThan(1e-9);
}

it("takes several tokens over a cache as long as no window is shorter than both", async () => {
  const { config } = await fixture("mistral");
  const window = config["sliding_window"] as number;
  const sequence = { batch: 1, length: 2, cacheLength: window - 2 };
  expect(causalLM(config, sequence).hidden.shape).toEqual([2, 32]);
  expect(() => causalLM(config, { ...sequence, cacheLength: window })).toThrow(
    /one token at a time over a cache of 5 slots, as the model's window is 5, got 2/,
  );
});
