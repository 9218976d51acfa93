import { expect, test } from "vitest";
import { planImageEpoch } from "./image-epoch.ts";
import { imageSizes, nearestSize } from "./image-sizes.ts";

test("one square, or sizes of about its area with sides that the unit divides", () => {
  expect(imageSizes(64, { unit: 8, keepsAspect: false })).toEqual([{ width: 64, height: 64 }]);
  for (const [resolution, unit] of [
    [512, 8],
    [1024, 8],
    [64, 8],
    [24, 8],
  ] as const) {
    const sizes = imageSizes(resolution, { unit, keepsAspect: true });
    expect(sizes[0]).toEqual({ width: resolution, height: resolution });
    expect(new Set(sizes.map(({ width, height }) => `${width}x${height}`)).size).toBe(sizes.length);
    for (const { width, height } of sizes) {
      expect([width % unit, height % unit]).toEqual([0, 0]);
      expect(width * height).toBeLessThanOrEqual(resolution ** 2);
      expect(width * height).toBeGreaterThan(0.7 * resolution ** 2);
      expect(Math.max(width / height, height / width)).toBeLessThanOrEqual(2.05);
    }
  }
  const known = imageSizes(512, { unit: 8, keepsAspect: true });
  expect(known).toContainEqual({ width: 448, height: 576 });
  expect(known).toContainEqual({ width: 640, height: 384 });
});

test("an image goes to the size of the nearest proportions", () => {
  const sizes = imageSizes(512, { unit: 8, keepsAspect: true });
  const at = (width: number, height: number): unknown =>
    sizes[nearestSize({ width, height }, sizes)];
  expect(at(3000, 3000)).toEqual({ width: 512, height: 512 });
  expect(at(4000, 3000)).toEqual({ width: 576, height: 448 });
  expect(at(300, 4000)).toEqual({ width: 384, height: 640 });
});

test("a pass has every image once, batches of one size, and another order each time", () => {
  const sizes = Array.from({ length: 23 }, (_, i) => (i % 3 === 0 ? 1 : 0));
  const options = { batchSize: 4, seed: 7 };
  const plan = planImageEpoch(sizes, options, 0);
  expect(plan.flat().sort((a, b) => a - b)).toEqual(sizes.map((_, i) => i));
  for (const batch of plan) expect(new Set(batch.map((image) => sizes[image])).size).toBe(1);
  expect(plan.length).toBe(4 + 2); // 15 of one size, 8 of the other
  expect(planImageEpoch(sizes, options, 0)).toEqual(plan);
  expect(planImageEpoch(sizes, options, 1)).not.toEqual(plan);
});
