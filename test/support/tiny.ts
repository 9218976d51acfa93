import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Weight, WeightSource } from "../../src/backends/backend.ts";
import { decodeSafetensors } from "../../src/formats/safetensors.ts";
import type { HfConfig } from "../../src/models/config.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";

/** A tiny checkpoint of test/fixtures/models in memory. */
export interface TinyModel {
  readonly config: HfConfig;
  readonly weights: WeightSource;
}

/** Reads the fixture `name`. */
export async function tinyModel(name: string): Promise<TinyModel> {
  const folder = join(import.meta.dirname, "../fixtures/models", name);
  const { tensors } = await decodeSafetensors(await readFile(join(folder, "model.safetensors")));
  const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as HfConfig;
  return { config, weights: memoryWeights(tensors) };
}

/** Frozen weights that are in memory. */
export function memoryWeights(tensors: ReadonlyMap<string, Tensor>): WeightSource {
  const get = (name: string): Weight => {
    const tensor = tensors.get(name)!;
    return { dtype: tensor.dtype, shape: tensor.shape, bytes: { kind: "memory", tensor } };
  };
  return { names: [...tensors.keys()], get, read: (name) => Promise.resolve(tensors.get(name)!) };
}
