import { expect, it } from "vitest";
import { largestHead } from "./attention.ts";

it("heads are as large as shared memory allows: 256 on A100 and H100, 176 where a block has 99 KiB", () => {
  expect([232448, 166912, 101376].map(largestHead)).toEqual([256, 256, 176]);
});
