import { expect, test } from "vitest";
import { sizeLine } from "./size-line.ts";

test("text: samples, tokens, parameters, steps", () => {
  const data = { samples: 1200, tokens: 45678, supervisedTokens: 12345 };
  const size = {
    data,
    unit: "samples",
    trainableParameters: 460800,
    parameters: 134515008 + 460800,
    totalSteps: 150,
  } as const;
  expect(sizeLine(size)).toBe(
    "1,200 samples, 12,345 of 45,678 tokens supervised, 460,800 trainable parameters (0.341 %), 150 steps",
  );
});

test("images have no tokens; all of the parameters are 100 %", () => {
  const size = {
    data: { samples: 9 },
    unit: "images",
    trainableParameters: 7,
    parameters: 7,
    totalSteps: 20,
  } as const;
  expect(sizeLine(size)).toBe("9 images, 7 trainable parameters (100 %), 20 steps");
});
