import { expect, test } from "vitest";
import * as lorikeet from "../src/index.ts";

test("the package exports these names; a change here is a change of the public API", () => {
  expect(Object.keys(lorikeet).sort()).toMatchInlineSnapshot(`
    [
      "EMBEDDED_MODELS",
      "LorikeetError",
      "generate",
      "loadAdapter",
      "loadModel",
      "lora",
      "openSession",
      "saveAdapter",
      "tensor",
      "train",
    ]
  `);
});
