import { expect, test } from "vitest";
import * as lorikeet from "../src/index.ts";

test("the package exports these names; a change here is a change of the public API", () => {
  expect(Object.keys(lorikeet).sort()).toMatchInlineSnapshot(`
    [
      "EMBEDDED_MODELS",
      "LoraConv1d",
      "LoraConv2d",
      "LoraEmbedding",
      "LoraLinear",
      "LorikeetError",
      "combine",
      "exportGguf",
      "exportOnnx",
      "fit",
      "generate",
      "imagine",
      "loadAdapter",
      "loadImageAdapter",
      "loadModel",
      "loadPipeline",
      "lora",
      "merge",
      "mergePipeline",
      "mergeToGguf",
      "mergeToOnnx",
      "openAdapters",
      "openImageSession",
      "openSession",
      "saveAdapter",
      "saveImage",
      "saveImageAdapter",
      "tensor",
      "train",
      "trainImages",
      "unmerge",
      "unmergePipeline",
    ]
  `);
});
