import { expect, it } from "vitest";
import { Random } from "../../tensor/random.ts";
import { adamw, globalNorm } from "./adamw.ts";

const random = new Random(3);
const drawn = (length: number, scale: number): Float32Array =>
  Float32Array.from({ length }, () => scale * random.normal());

it("updates every element as float64 arithmetic does, to 1e-6, whatever the length", () => {
  const update = {
    ...{ step: 3, learningRate: 0.01, betas: [0.9, 0.99] as const, eps: 1e-8 },
    ...{ weightDecay: 0.1, maxGradNorm: 1 },
  };
  for (const length of [1, 5, 2048, 5003]) {
    const arrays = {
      value: drawn(length, 1),
      gradient: drawn(length, 0.1),
      average: drawn(length, 0.1),
      averageOfSquares: drawn(length, 0.1).map(Math.abs),
    };
    const before = { ...arrays, value: arrays.value.slice(), average: arrays.average.slice() };
    const squares = arrays.averageOfSquares.slice();
    adamw(arrays, update, 0.5, 2);
    let worst = 0;
    const compare = (got: number, want: number): void => {
      worst = Math.max(worst, Math.abs(got - want));
    };
    for (let i = 0; i < length; i++) {
      const g = 0.5 * before.gradient[i]!;
      const m = 0.9 * before.average[i]! + 0.1 * g;
      const v = 0.99 * squares[i]! + 0.01 * g * g;
      const change = (0.02 / (1 - 0.9 ** 3)) * (m / (Math.sqrt(v / (1 - 0.99 ** 3)) + 1e-8));
      compare(arrays.value[i]!, before.value[i]! * (1 - 0.002) - change);
      compare(arrays.average[i]!, m);
      compare(arrays.averageOfSquares[i]!, v);
    }
    expect(worst).toBeLessThan(1e-6);
  }
});

it("sums squares of arrays of any length", () => {
  expect(globalNorm([Float32Array.of(3), Float32Array.of(0, 0, 0, 0, 4)])).toBe(5);
  expect(globalNorm([Float32Array.of(1, NaN)])).toBeNaN();
});
