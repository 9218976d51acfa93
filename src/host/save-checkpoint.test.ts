import { readdirSync, statSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { tensor } from "../tensor/tensor.ts";
import type { Checkpoint } from "./open-checkpoint.ts";
import { openFolder } from "./open-checkpoint.ts";
import { saveCheckpoint } from "./save-checkpoint.ts";

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "lorikeet-save-"));
});
afterAll(() => rm(scratch, { recursive: true }));

const SHAPE = [64, 256];
const names = Array.from({ length: 6 }, (_, i) => `model.layers.${i}.weight`);
const BYTES = 4 * 64 * 256;

function checkpoint(read: (name: string) => void): Checkpoint {
  return {
    name: "synthetic",
    path: scratch,
    config: { model_type: "llama" },
    tokenizer: { version: "1.0" },
    tokenizerConfig: { model_max_length: 8 },
    generationConfig: undefined,
    chatTemplate: undefined,
    weights: {
      names,
      get: () => ({ dtype: "f32", shape: SHAPE, bytes: { kind: "computed" } }),
      read(name) {
        read(name);
        const values = new Float32Array(64 * 256).fill(names.indexOf(name));
        return Promise.resolve(tensor("f32", SHAPE, values));
      },
    },
  };
}

it("reads a weight only after those before it were written: one is in memory at a time", async () => {
  const out = join(scratch, "out");
  const written: number[] = [];
  const source = checkpoint(() => {
    const folder = readdirSync(scratch).find((name) => name.endsWith(".tmp"))!;
    const files = readdirSync(join(scratch, folder), { withFileTypes: true });
    const sizes = files.map(({ name }) => statSync(join(scratch, folder, name)).size);
    written.push(Math.floor(sizes.reduce((sum, size) => sum + size, 0) / BYTES));
  });
  await saveCheckpoint(source, out, { maxShardBytes: 2 * BYTES });
  expect(written).toEqual([0, 1, 2, 3, 4, 5]);
});

it("writes shards of at most the size given, an index that names them, config and tokenizer", async () => {
  const out = join(scratch, "sharded");
  await saveCheckpoint(checkpoint(() => undefined), out, { maxShardBytes: 2.5 * BYTES }); // prettier-ignore
  expect((await readdir(out)).sort()).toEqual([
    "config.json",
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  const index = JSON.parse(await readFile(join(out, "model.safetensors.index.json"), "utf8")) as { metadata: object; weight_map: object }; // prettier-ignore
  expect(index.metadata).toEqual({ total_size: 6 * BYTES });
  expect(Object.keys(index.weight_map).sort()).toEqual(names);
  const { weights } = await openFolder(out);
  for (const [i, name] of names.entries()) expect((await weights.read(name)).data[7]).toBe(i);
});
