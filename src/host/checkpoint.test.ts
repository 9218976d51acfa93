import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { formatShardIndex } from "../formats/safetensors-index.ts";
import { serializeSafetensors } from "../formats/safetensors-write.ts";
import { tensor } from "../tensor/tensor.ts";
import { openWeights } from "./checkpoint.ts";

const fixtures = new URL("../formats/fixtures/", import.meta.url).pathname;
const models = new URL("../../test/fixtures/models/", import.meta.url).pathname;
let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lorikeet-checkpoint-"));
});
afterEach(() => rm(folder, { recursive: true }));

test("a folder of safetensors, single or sharded", async () => {
  expect((await openWeights(join(models, "llama"))).names).toContain("model.norm.weight");
  const sharded = await openWeights(join(models, "llama-sharded"));
  const norm = await sharded.read("model.norm.weight");
  expect(norm.shape).toEqual(sharded.get("model.norm.weight").shape);
});

test("a folder of PyTorch files, single or sharded; views are computed, the rest are file ranges", async () => {
  const bin = join(folder, "pytorch_model.bin");
  await cp(join(fixtures, "state-dict.bin"), bin);
  const single = await openWeights(folder);
  expect(single.get("linear.weight").bytes).toMatchObject({ kind: "file", path: bin, length: 96 });
  expect(single.get("transposed").bytes).toEqual({ kind: "computed" });
  expect((await single.read("parameter")).dtype).toBe("bf16");
  const index = join(folder, "pytorch_model.bin.index.json");
  await writeFile(index, formatShardIndex(new Map([["row", "pytorch_model.bin"]]), 24));
  expect((await openWeights(index)).names).toEqual(["row"]);
  await writeFile(index, formatShardIndex(new Map([["column", "pytorch_model.bin"]]), 24));
  await expect(openWeights(index)).rejects.toMatchObject({ code: "corrupt-index" });
});

test("safetensors win over PyTorch files", async () => {
  await cp(join(fixtures, "state-dict.bin"), join(folder, "pytorch_model.bin"));
  const file = serializeSafetensors(new Map([["only", tensor("f32", [1])]]));
  await writeFile(join(folder, "model.safetensors"), file);
  expect((await openWeights(folder)).names).toEqual(["only"]);
});

test("what holds no weights is refused", async () => {
  await expect(openWeights(join(folder, "none"))).rejects.toMatchObject({ code: "file-not-found" });
  await expect(openWeights(folder)).rejects.toMatchObject({ code: "missing-weights" });
  await writeFile(join(folder, "weights.npz"), "");
  await expect(openWeights(join(folder, "weights.npz"))).rejects.toMatchObject({ code: "unknown-format" }); // prettier-ignore
});
