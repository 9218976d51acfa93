import { expect, it } from "vitest";
import { print } from "../ir/print.ts";
import { embedding } from "../ops/embedding.ts";
import { input, parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { unfreeze } from "./unfreeze.ts";

it("marks named weights trainable, one node for a tied one", () => {
  const table = parameter("embed.weight", [5, 3]);
  const hidden = linear(embedding(input("ids", [2], "i64"), table), parameter("w", [3, 3]));
  const logits = linear(hidden, table);
  const [trained] = unfreeze([logits], (name) => name.startsWith("embed."));
  expect(print({ logits: trained! })).toMatchInlineSnapshot(`
    "%ids = input() i64 [2]
    %embed.weight = parameter() {trainable: true} f32 [5, 3]
    %2 = embedding(%ids, %embed.weight) f32 [2, 3]
    %w = parameter() {trainable: false} f32 [3, 3]
    %4 = linear(%2, %w) {fanInFanOut: false, module: } f32 [2, 3]
    %5 = linear(%4, %embed.weight) {fanInFanOut: false, module: } f32 [2, 5]
    → logits = %5"
  `);
  expect(unfreeze([logits], () => false)).toEqual([logits]);
});
