import { describe, expect, test } from "vitest";
import { learningRateSchedule, type ScheduleName, warmupSteps } from "./schedule.ts";

/** Rates of ten steps, peak 2e-3, from transformers 5 `get_scheduler` (rounded to 1e-12 there). */
const KNOWN: [ScheduleName, number, number[]][] = [
  ["constant", 0, [0.002, 0.002, 0.002, 0.002, 0.002, 0.002, 0.002, 0.002, 0.002, 0.002]],
  [
    "constant_with_warmup",
    3,
    [0, 0.000666666667, 0.001333333333, 0.002, 0.002, 0.002, 0.002, 0.002, 0.002, 0.002],
  ],
  ["linear", 0, [0.002, 0.0018, 0.0016, 0.0014, 0.0012, 0.001, 0.0008, 0.0006, 0.0004, 0.0002]],
  [
    "linear",
    3,
    [
      0, 0.000666666667, 0.001333333333, 0.002, 0.001714285714, 0.001428571429, 0.001142857143,
      0.000857142857, 0.000571428571, 0.000285714286,
    ],
  ],
  [
    "cosine",
    0,
    [
      0.002, 0.001951056516, 0.001809016994, 0.001587785252, 0.001309016994, 0.001, 0.000690983006,
      0.000412214748, 0.000190983006, 4.8943484e-5,
    ],
  ],
  [
    "cosine",
    3,
    [
      0, 0.000666666667, 0.001333333333, 0.002, 0.001900968868, 0.001623489802, 0.001222520934,
      0.000777479066, 0.000376510198, 9.9031132e-5,
    ],
  ],
];

describe("learningRateSchedule", () => {
  test.each(KNOWN)("%s with %i warm-up steps equals transformers", (name, warmup, expected) => {
    const rate = learningRateSchedule(name, {
      learningRate: 2e-3,
      totalSteps: expected.length,
      warmupSteps: warmup,
    });
    expected.forEach((value, i) => {
      expect(Math.abs(rate(i + 1) - value), `step ${i + 1}`).toBeLessThan(1e-12);
    });
  });

  test("stays at zero after the last step", () => {
    expect(learningRateSchedule("linear", { learningRate: 1, totalSteps: 4 })(5)).toBe(0);
    expect(learningRateSchedule("linear", { learningRate: 1, totalSteps: 4 })(50)).toBe(0);
  });

  test("a ratio is rounded up, and a number of steps wins over it", () => {
    expect(warmupSteps({ learningRate: 1, totalSteps: 101, warmupRatio: 0.1 })).toBe(11);
    expect(
      warmupSteps({ learningRate: 1, totalSteps: 101, warmupRatio: 0.1, warmupSteps: 4 }),
    ).toBe(4);
    expect(warmupSteps({ learningRate: 1, totalSteps: 101 })).toBe(0);
  });

  test("an unknown name is refused with the nearest one", () => {
    expect(() =>
      learningRateSchedule("cosin" as ScheduleName, { learningRate: 1, totalSteps: 4 }),
    ).toThrow(expect.objectContaining({ code: "schedule", hint: 'Did you mean "cosine"?' }));
  });
});
