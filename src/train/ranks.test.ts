import { describe, expect, it } from "vitest";
import { tensor } from "../tensor/tensor.ts";
import { shareOf } from "./ranks.ts";
import type { Batch, Window } from "./setup.ts";

const batch = (weight: number): Batch => ({
  loss_weights: tensor("f32", [1], Float32Array.of(weight)),
});

async function* windowsOf(...counts: number[]): AsyncGenerator<Window> {
  for (const count of counts)
    yield {
      batches: Array.from({ length: count }, (_, i) => batch((i + 1) / 8)),
      tokens: 1,
      epoch: 1,
      cursor: undefined,
    };
}

async function sharesOf(rank: number, size: number, ...counts: number[]): Promise<Window[]> {
  const shares: Window[] = [];
  for await (const share of shareOf(windowsOf(...counts), { rank, size })) shares.push(share);
  return shares;
}

const weights = ({ batches }: Window): number[] =>
  batches.map((each) => Number(each["loss_weights"]!.data[0]));

describe("shareOf", () => {
  it("deals the batches of a window out, with their numbers", async () => {
    const [first] = await sharesOf(0, 2, 5);
    const [second] = await sharesOf(1, 2, 5);
    expect(first!.numbers).toEqual([0, 2, 4]);
    expect(second!.numbers).toEqual([1, 3]);
    expect([...weights(first!), ...weights(second!)].sort()).toEqual(
      [1, 2, 3, 4, 5].map((x) => x / 8),
    );
  });

  it("gives a process without a batch one that weighs nothing", async () => {
    const [, short] = await sharesOf(2, 3, 3, 2);
    expect(weights(short!)).toEqual([0]);
  });
});
