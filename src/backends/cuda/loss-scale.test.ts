import { describe, expect, it } from "vitest";
import { lossScale } from "./loss-scale.ts";

describe("lossScale", () => {
  it("halves at each overflow, down to one", () => {
    const scale = lossScale(4);
    const seen = [Infinity, NaN, Infinity].map((norm) => {
      scale.update(norm);
      return scale.value;
    });
    expect(seen).toEqual([2, 1, 1]);
  });

  it("doubles after a thousand finite updates in a row", () => {
    const scale = lossScale(4);
    for (let i = 0; i < 999; i++) scale.update(1);
    expect(scale.value).toBe(4);
    scale.update(1);
    expect(scale.value).toBe(8);
  });

  it("counts anew after an overflow", () => {
    const scale = lossScale(4);
    for (let i = 0; i < 999; i++) scale.update(1);
    scale.update(Infinity);
    scale.update(1);
    expect(scale.value).toBe(2);
  });
});
