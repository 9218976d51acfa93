import { describe, expect, it } from "vitest";
import { input } from "./leaf.ts";
import { randomKeep } from "./random-keep.ts";

const [R, C, P] = [512, 576, 0.05];

function dropped(seed: number, stream: number): Uint8Array {
  const node = randomKeep(input("seed", [], "i64"), { shape: [R, C], p: P, stream });
  const value = { shape: [], data: Float64Array.of(seed) };
  return Uint8Array.from(node.op.evaluate!(node, [value]), (isKept) => 1 - isKept);
}
const shared = (a: Uint8Array, b: Uint8Array): number =>
  a.reduce((sum, value, i) => sum + value * b[i]!, 0);
const total = (x: Uint8Array): number => x.reduce((sum, value) => sum + value, 0);
/** How far `count` of `trials` is from what probability `p` gives, in standard deviations. */
const deviations = (count: number, trials: number, p: number): number =>
  Math.abs(count - trials * p) / Math.sqrt(trials * p * (1 - p));

describe.each([1, 7, 123456])("seed %i", (seed) => {
  const mask = dropped(seed, 3);
  const row = (r: number): Uint8Array => mask.subarray(r * C, (r + 1) * C);

  it("drops its share of all elements, and each row and column about its own", () => {
    expect(deviations(total(mask), R * C, P)).toBeLessThan(4);
    const rows = Array.from({ length: R }, (_, r) => deviations(total(row(r)), C, P));
    expect(rows.filter((x) => x > 2).length / R).toBeLessThan(0.1); // 0.046 for independent draws
    const byColumn = new Array<number>(C).fill(0);
    mask.forEach((value, i) => (byColumn[i % C]! += value));
    const columns = byColumn.map((count) => deviations(count, R, P));
    expect(columns.filter((x) => x > 2).length / C).toBeLessThan(0.1);
  });

  it("drops as many elements of two rows together as independent draws", () => {
    let together = 0;
    let worst = 0;
    for (let r = 1; r < R; r++) {
      const both = shared(row(r - 1), row(r));
      together += both;
      worst = Math.max(worst, deviations(both, C, P * P));
    }
    expect(deviations(together, (R - 1) * C, P * P)).toBeLessThan(4);
    expect(worst).toBeLessThan(8);
  });

  it.each([
    [seed, 4],
    [seed, 1027],
    [seed + 1, 3],
  ])("has nothing to do with the mask of seed %i, stream %i", (otherSeed, stream) => {
    const both = shared(mask, dropped(otherSeed, stream));
    expect(deviations(both, R * C, P * P)).toBeLessThan(4);
  });
});
