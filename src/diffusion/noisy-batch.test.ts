import { describe, expect, test } from "vitest";
import { Random } from "../tensor/random.ts";
import { noiseSchedule } from "./noise-schedule.ts";
import { drawRow, latentMoments, noisyFeeds, type NoiseSettings } from "./noisy-batch.ts";
import { schedulerConfig } from "./scheduler-config.ts";

const settings: NoiseSettings = {
  schedule: noiseSchedule(schedulerConfig({ beta_schedule: "scaled_linear" })),
  prediction: "epsilon",
  snrGamma: undefined,
  noiseOffset: 0,
};
const size = 2 * 32 * 32;
const moments = latentMoments(
  Float32Array.from({ length: 2 * size }, (_, i) => (i < size ? 3 : Math.log(0.25))),
  [2, 32, 32],
);
const mean = (values: Float32Array): number => values.reduce((a, b) => a + b, 0) / values.length;
const deviation = (values: Float32Array): number => {
  const middle = mean(values);
  return Math.sqrt(mean(values.map((value) => (value - middle) ** 2)));
};

describe("drawRow", () => {
  test("latents have the encoder's mean and deviation, scaled; noise is standard normal", () => {
    const row = drawRow(new Random(1), moments, settings, { scale: 2, weight: 1 });
    // 2048 values: within four standard errors
    expect(Math.abs(mean(row.clean) - 6)).toBeLessThan(4 / Math.sqrt(size));
    expect(Math.abs(deviation(row.clean) - 1)).toBeLessThan(0.07);
    expect(Math.abs(mean(row.noise))).toBeLessThan(4 / Math.sqrt(size));
    expect(Math.abs(deviation(row.noise) - 1)).toBeLessThan(0.07);
  });

  test("is a function of the random stream alone", () => {
    const draw = (seed: number) =>
      drawRow(new Random(seed), moments, settings, { scale: 1, weight: 1 });
    expect(draw(3)).toEqual(draw(3));
    expect(draw(3).noise).not.toEqual(draw(4).noise);
  });

  test("times are uniform, in all or in a part", () => {
    const times = Array.from({ length: 400 }, (_, i) => {
      const choice = { scale: 1, weight: 1, times: [0.25, 0.5] as const };
      return drawRow(new Random(i), moments, settings, choice).t;
    });
    expect(Math.min(...times)).toBeGreaterThanOrEqual(250);
    expect(Math.max(...times)).toBeLessThan(500);
    expect(Math.abs(mean(Float32Array.from(times)) - 375)).toBeLessThan(15);
  });

  test("noise offset moves whole channels", () => {
    const means = Array.from({ length: 100 }, (_, i) => {
      const offset = { ...settings, noiseOffset: 0.5 };
      const { noise } = drawRow(new Random(i), moments, offset, { scale: 1, weight: 1 });
      return mean(noise.subarray(0, size / 2));
    });
    expect(Math.abs(deviation(Float32Array.from(means)) - 0.5)).toBeLessThan(0.12);
  });
});

test("min-SNR lowers the weight of rows with little noise alone", () => {
  const row = drawRow(new Random(1), moments, settings, { scale: 1, weight: 0.5 });
  const rows = [10, 900].map((t) => ({ ...row, t }));
  const { loss_weights: weights } = noisyFeeds(rows, moments.shape, { ...settings, snrGamma: 5 });
  const [early, late] = [...weights!.data].map(Number);
  expect(early).toBeLessThan(0.05);
  expect(late).toBe(0.5);
});
