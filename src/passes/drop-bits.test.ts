import { expect, it } from "vitest";
import { interpret } from "../backends/reference/interpret.ts";
import { topological } from "../ir/graph.ts";
import { rewrite } from "../ir/rewrite.ts";
import { dropout } from "../ops/dropout.ts";
import { input } from "../ops/leaf.ts";
import { tensor } from "../tensor/tensor.ts";
import { dropBits } from "./drop-bits.ts";
import { expand } from "./expand.ts";

it("drops the same elements without a mask of floats", () => {
  const y = dropout(input("x", [4, 16]), input("seed", [], "i64"), { p: 0.25, stream: 2 });
  const [masked] = expand([y], () => false);
  const [bits] = rewrite([masked!], dropBits);
  expect(topological([bits!]).map((node) => node.op.name)).not.toContain("randomMask");
  const bind = (name: string) =>
    name === "seed"
      ? tensor("i64", [], BigInt64Array.of(11n))
      : tensor(
          "f64",
          [4, 16],
          Float64Array.from({ length: 64 }, (_, i) => i + 1),
        );
  const [got, want] = interpret([bits!, masked!], bind);
  expect(want!.data.filter((value) => value === 0).length).toBeGreaterThan(4);
  for (const [i, value] of want!.data.entries()) expect(got!.data[i]).toBeCloseTo(value, 12);
});
