import { expect, it } from "vitest";
import { hintOf } from "./driver.ts";

it("tells old drivers, lost GPUs and everything else apart", () => {
  expect(hintOf(36)).toMatch(/older than these CUDA libraries/);
  expect(hintOf(222)).toMatch(/older than these CUDA libraries/);
  expect(hintOf(719)).toMatch(/--resume/);
  expect(hintOf(1)).toMatch(/lorikeet doctor/);
});
