import { expect, test } from "vitest";
import { LorikeetError } from "../errors.ts";
import { formatShardIndex, parseShardIndex, planShards } from "./safetensors-index.ts";

test("an index is read as it is written", () => {
  const map = new Map([
    ["b", "model-00002-of-00002.safetensors"],
    ["a", "model-00001-of-00002.safetensors"],
  ]);
  const text = formatShardIndex(map, 12);
  expect(text).toBe(`{
  "metadata": {
    "total_size": 12
  },
  "weight_map": {
    "a": "model-00001-of-00002.safetensors",
    "b": "model-00002-of-00002.safetensors"
  }
}
`);
  expect(parseShardIndex(text)).toEqual(map);
});

test.each([
  ["no JSON", "{", /not JSON/],
  ["no map", "{}", /no object "weight_map"/],
  ["null", "null", /no object "weight_map"/],
  ["a path upwards", '{"weight_map":{"a":"../x"}}', /"a" is not in a file of the same folder/],
  ["a folder", '{"weight_map":{"a":".."}}', /"a" is not in a file/],
  ["an absolute path", '{"weight_map":{"a":"/etc/passwd"}}', /"a" is not in a file/],
  ["a Windows path", '{"weight_map":{"a":"C:x"}}', /"a" is not in a file/],
  ["a number", '{"weight_map":{"a":1}}', /"a" is not in a file/],
  ["a name twice", '{"weight_map":{"a":"x","a":"y"}}', /"weight_map.a" occurs twice/],
])("refuses an index with %s", (_, text, message) => {
  expect(() => parseShardIndex(text, "i.json")).toThrow(message);
  expect(() => parseShardIndex(text, "i.json")).toThrow(LorikeetError);
});

test("shards are filled in order, and one too large tensor stands alone", () => {
  const specs = [3, 4, 100, 2, 8].map((size, i) => ({
    name: `t${i}`,
    dtype: "u8" as const,
    shape: [size],
  }));
  const shards = planShards(specs, 10);
  expect(shards.map(({ tensors }) => tensors.map(({ name }) => name))).toEqual([
    ["t0", "t1"],
    ["t2"],
    ["t3", "t4"],
  ]);
  expect(shards[2]!.file).toBe("model-00003-of-00003.safetensors");
  expect(planShards(specs, 1000).map(({ file }) => file)).toEqual(["model.safetensors"]);
});
