import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { formatShardIndex } from "../formats/safetensors-index.ts";
import { serializeSafetensors } from "../formats/safetensors-write.ts";
import { tensor } from "../tensor/tensor.ts";
import { openSafetensors, openShardedSafetensors } from "./checkpoint-weights.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lorikeet-weights-"));
});
afterEach(() => rm(folder, { recursive: true }));

const a = tensor("f32", [2], Float32Array.of(1, 2));
const b = tensor("bf16", [1, 3], Uint16Array.of(1, 2, 3));

async function writeShards(): Promise<string> {
  const one = serializeSafetensors(new Map([["a", a]]));
  const two = serializeSafetensors(new Map([["b", b]]));
  await writeFile(join(folder, "m-00001-of-00002.safetensors"), one);
  await writeFile(join(folder, "m-00002-of-00002.safetensors"), two);
  const map = new Map([
    ["a", "m-00001-of-00002.safetensors"],
    ["b", "m-00002-of-00002.safetensors"],
  ]);
  const index = join(folder, "m.safetensors.index.json");
  await writeFile(index, formatShardIndex(map, 14));
  return index;
}

test("weights of a file are ranges of it, and are read as they were stored", async () => {
  const path = join(folder, "m.safetensors");
  const bytes = serializeSafetensors(new Map([["a", a], ["b", b]])); // prettier-ignore
  await writeFile(path, bytes);
  const weights = await openSafetensors(path);
  expect(weights.names).toEqual(["a", "b"]);
  expect(weights.get("b")).toEqual({
    dtype: "bf16",
    shape: [1, 3],
    bytes: { kind: "file", path, offset: bytes.length - 6, length: 6 },
  });
  expect(await weights.read("a")).toEqual(a);
  expect(await weights.read("b")).toEqual(b);
});

test("a weight that is not there is named, with the nearest", async () => {
  const path = join(folder, "m.safetensors");
  await writeFile(path, serializeSafetensors(new Map([["layer.weight", a]])));
  const weights = await openSafetensors(path);
  expect(() => weights.get("layers.weight")).toThrow(
    expect.objectContaining({ code: "missing-weight", hint: "Did you mean layer.weight?" }),
  );
  await expect(weights.read("zzzzzzzzzzzzzzzzz")).rejects.toMatchObject({ code: "missing-weight" });
});

test("a sharded checkpoint reads like one file", async () => {
  const weights = await openShardedSafetensors(await writeShards());
  expect([...weights.names].sort()).toEqual(["a", "b"]);
  expect(await weights.read("b")).toEqual(b);
});

test("missing shards are all named", async () => {
  const index = await writeShards();
  await rm(join(folder, "m-00001-of-00002.safetensors"));
  await rm(join(folder, "m-00002-of-00002.safetensors"));
  const opening = openShardedSafetensors(index);
  await expect(opening).rejects.toMatchObject({ code: "missing-shard" });
  await expect(opening).rejects.toThrow(/2 are missing: .*m-00001.*m-00002/);
});

test("a shard that was cut off is named, with both sizes", async () => {
  const index = await writeShards();
  const path = join(folder, "m-00002-of-00002.safetensors");
  await truncate(path, 70);
  const opening = openShardedSafetensors(index);
  await expect(opening).rejects.toMatchObject({ code: "truncated-file" });
  await expect(opening).rejects.toThrow(
    /m-00002.* to have at least \d+ bytes, got 70: \d+ bytes are/,
  );
});

test("an index that names a tensor its shard lacks is corrupt", async () => {
  const index = await writeShards();
  const file = "m-00001-of-00002.safetensors";
  const map = new Map([["a", file], ["b", file], ["c", file]]); // prettier-ignore
  await writeFile(index, formatShardIndex(map, 14));
  const opening = openShardedSafetensors(index);
  await expect(opening).rejects.toMatchObject({ code: "corrupt-index" });
  await expect(opening).rejects.toThrow(
    /2 faults[^]*"b" is not in m-00001[^]*"c" is not in m-00001/,
  );
});
