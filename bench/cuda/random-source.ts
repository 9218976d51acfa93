/** @file Random frozen weights N(0, 0.02) in bf16 that repeat one block of numbers: made in no time, of any size. */
import { closeSync, existsSync, openSync, writeSync } from "node:fs";
import type { WeightSource } from "../../src/backends/backend.ts";
import { toBf16 } from "../../src/tensor/convert.ts";
import { Random } from "../../src/tensor/random.ts";
import { type Shape, sizeOf } from "../../src/tensor/shape.ts";
import { tensor, type Tensor } from "../../src/tensor/tensor.ts";

type Shapes = ReadonlyMap<string, Shape>;

/** Weights of these shapes, made when they are read. */
export function randomSource(shapes: Shapes): WeightSource {
  return {
    names: [...shapes.keys()],
    get: (key) => ({ dtype: "bf16", shape: shapes.get(key)!, bytes: { kind: "computed" } }),
    read: (key) => Promise.resolve(randomWeight(shapes.get(key)!)),
  };
}

/** The same weights, read from the file `path` as from a checkpoint; it is made at the first call. */
export function fileSource(path: string, shapes: Shapes): WeightSource {
  const memory = randomSource(shapes);
  if (!existsSync(path)) {
    const file = openSync(path, "w");
    for (const shape of shapes.values()) writeSync(file, randomWeight(shape).data as Uint16Array);
    closeSync(file);
  }
  const places = new Map<string, { offset: number; length: number }>();
  let offset = 0;
  for (const [key, shape] of shapes) {
    places.set(key, { offset, length: sizeOf(shape) * 2 });
    offset += sizeOf(shape) * 2;
  }
  return {
    ...memory,
    get: (key) => ({
      ...memory.get(key),
      bytes: { kind: "file", path, ...places.get(key)! },
    }),
  };
}

function randomWeight(shape: Shape): Tensor {
  const values = randomBlock();
  const data = new Uint16Array(sizeOf(shape));
  if (shape.length < 2) return tensor("bf16", shape, data.fill(toBf16(1)));
  for (let at = 0; at < data.length; at += values.length)
    data.set(values.subarray(0, Math.min(values.length, data.length - at)), at);
  return tensor("bf16", shape, data);
}

let block: Uint16Array | undefined;

function randomBlock(): Uint16Array {
  const random = new Random(1);
  block ??= Uint16Array.from({ length: 1 << 22 }, () => toBf16(0.02 * random.normal()));
  return block;
}
