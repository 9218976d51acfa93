import { describe, expect, it } from "vitest";
import { Random } from "../tensor/random.ts";
import { bestFitDecreasing } from "./pack.ts";

describe("bestFitDecreasing", () => {
  it("fills the fullest bin that an item fits", () => {
    expect(bestFitDecreasing([5, 8, 1, 4, 2], 10)).toEqual([
      [1, 4],
      [0, 3, 2],
    ]);
    // 7+3 and 6+4, where the first bin that fits would be 7+… for both
    expect(bestFitDecreasing([3, 4, 6, 7], 10)).toEqual([
      [3, 0],
      [2, 1],
    ]);
    expect(bestFitDecreasing([], 10)).toEqual([]);
    expect(bestFitDecreasing([10, 10], 10)).toEqual([[0], [1]]);
  });

  it.each([31, 32, 33, 64, 1000])("keeps every item once and no bin over %d", (capacity) => {
    const random = new Random(capacity);
    const lengths = Array.from({ length: 500 }, () => 1 + random.integer(capacity));
    const bins = bestFitDecreasing(lengths, capacity);
    expect(bins.flat().sort((a, b) => a - b)).toEqual(lengths.map((_, i) => i));
    const loads = bins.map((bin) => bin.reduce((sum, item) => sum + lengths[item]!, 0));
    expect(Math.max(...loads)).toBeLessThanOrEqual(capacity);
    const fewest = Math.ceil(lengths.reduce((a, b) => a + b) / capacity);
    expect(bins.length).toBeLessThanOrEqual(Math.ceil((11 / 9) * fewest + 1));
  });

  it("puts each item where plain search finds the least room", () => {
    const random = new Random(7);
    const lengths = Array.from({ length: 300 }, () => 1 + random.integer(90));
    const order = lengths.map((_, i) => i).sort((a, b) => lengths[b]! - lengths[a]! || a - b);
    const room: number[] = [];
    for (const item of order) {
      const fits = room.map((left) => left - lengths[item]!).filter((left) => left >= 0);
      if (fits.length === 0) room.push(100 - lengths[item]!);
      else room[room.indexOf(Math.min(...fits) + lengths[item]!)]! -= lengths[item]!;
    }
    const loads = bestFitDecreasing(lengths, 100).map(
      (bin) => 100 - bin.reduce((sum, item) => sum + lengths[item]!, 0),
    );
    expect(loads.sort((a, b) => a - b)).toEqual(room.sort((a, b) => a - b));
  });
});
