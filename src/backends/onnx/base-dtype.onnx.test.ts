import { afterEach, describe, expect, it } from "vitest";
import { describeDifference, nmse } from "../../../test/support/compare.ts";
import type { Graph } from "../../ir/graph.ts";
import { add } from "../../ops/add.ts";
import { embedding } from "../../ops/embedding.ts";
import { input, parameter } from "../../ops/leaf.ts";
import { linear } from "../../ops/linear.ts";
import { linearCrossEntropy } from "../../ops/linear-cross-entropy.ts";
import { rmsNorm } from "../../ops/rms-norm.ts";
import { gradient } from "../../passes/gradient.ts";
import { convert } from "../../tensor/convert.ts";
import { decodeNf4, encodeInt8Rows, encodeNf4 } from "../../tensor/quantize.ts";
import { Random } from "../../tensor/random.ts";
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import type { Engine, WeightSource } from "../backend.ts";
import { referenceEngine } from "../reference/engine.ts";
import { createOnnxEngine } from "./engine.ts";
import type { BaseDType } from "./storage.ts";

const [N, C, H, R, V] = [5, 64, 128, 2, 40];
const random = new Random(9);
const normal = (shape: Shape, scale = 0.1): Tensor =>
  tensor(
    "f32",
    shape,
    Float32Array.from({ length: sizeOf(shape) }, () => scale * random.normal()),
  );
const weights: Record<string, Tensor> = {
  "embed_tokens.weight": normal([V, C], 1),
  "norm.weight": normal([C], 1),
  "up.weight": normal([H, C]),
  "down.weight": normal([C, H]),
};
const adapters: Record<string, Tensor> = { a: normal([R, H]), b: normal([C, R]) };
const ids = tensor("i64", [N], BigInt64Array.from([3n, 1n, 39n, 0n, 17n]));
const feeds = { ids, targets: ids, weights: tensor("f32", [N], new Float32Array(N).fill(1 / N)) };

/** Tied embeddings around two frozen layers, the second adapted; the gradient crosses both. */
function graphOf(): Graph {
  const table = parameter("embed_tokens.weight", [V, C]);
  const scale = parameter("s", [C], { trainable: true });
  const [a, b] = [
    parameter("a", [R, H], { trainable: true }),
    parameter("b", [C, R], { trainable: true }),
  ];
  const x = rmsNorm(
    add(embedding(input("ids", [N], "i64"), table), scale),
    parameter("norm.weight", [C]),
  );
  const up = linear(x, parameter("up.weight", [H, C]));
  const y = add(linear(up, parameter("down.weight", [C, H])), linear(linear(up, a), b));
  const loss = linearCrossEntropy(y, table, input("targets", [N], "i64"), input("weights", [N]));
  const found = gradient(loss, [scale, a, b]);
  const [ds, da, db] = found.gradients;
  return { outputs: { loss: found.loss }, gradients: { s: ds!, a: da!, b: db! } };
}

const sourceOf = (tensors: Record<string, Tensor>): WeightSource => ({
  names: Object.keys(tensors),
  get: (name) => ({ ...tensors[name]!, bytes: { kind: "memory", tensor: tensors[name]! } }),
  read: (name) => Promise.resolve(tensors[name]!),
});
const mapWeights = (change: (name: string, weight: Tensor) => Tensor): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(weights).map(([name, weight]) => [name, change(name, weight)]));

/** The weights as they come back from each storage. */
const decoded: Record<string, (name: string, weight: Tensor) => Tensor> = {
  nf4(name, weight) {
    if (!/up|down/.test(name)) return weight;
    const { codes, absmax } = encodeNf4(weight.data as Float32Array);
    return tensor("f32", weight.shape, decodeNf4(codes, absmax));
  },
  int8(name, weight) {
    if (!/up|down/.test(name)) return weight;
    const [rows, columns] = weight.shape as [number, number];
    const { codes, scales } = encodeInt8Rows(weight.data as Float32Array, rows);
    const data = Float32Array.from(codes, (code, i) => code * scales[Math.floor(i / columns)]!);
    return tensor("f32", weight.shape, data);
  },
  bf16: (name, weight) => (/up|down/.test(name) ? convert(convert(weight, "bf16"), "f32") : weight),
};

const engines: Engine[] = [];
afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.dispose()));
});
async function stepOf(engine: Engine): Promise<Record<string, Tensor>> {
  engines.push(engine);
  await engine.set("s", tensor("f32", [C]));
  for (const [name, value] of Object.entries(adapters)) await engine.set(name, value);
  const program = await engine.compile(graphOf());
  const { loss } = await program.run(feeds);
  const results: Record<string, Tensor> = { loss: loss! };
  for (const name of ["s", "a", "b"]) results[name] = await engine.get(`${name}.grad`);
  return results;
}

describe.each(["bf16", "int8", "nf4"] as const)("base in %s", (baseDtype) => {
  it("gives the loss and gradients of the decoded weights", async () => {
    const got = await stepOf(
      createOnnxEngine({ weights: sourceOf(weights), baseDtype, threads: 1 }),
    );
    const want = await stepOf(referenceEngine(sourceOf(mapWeights(decoded[baseDtype]!))));
    for (const [name, { data }] of Object.entries(want))
      expect(nmse(got[name]!.data, data), describeDifference(got[name]!.data, data)).toBeLessThan(
        1e-9,
      );
  });
});

it.each(["bf16", "f16"] as const)("reads %s weights, kept or widened, alike", async (dtype) => {
  const stored = mapWeights((_, weight) => convert(weight, dtype));
  const want = await stepOf(referenceEngine(sourceOf(stored)));
  for (const baseDtype of ["auto", "f32", "bf16"] as BaseDType[]) {
    const got = await stepOf(
      createOnnxEngine({ weights: sourceOf(stored), baseDtype, threads: 1 }),
    );
    const tolerance = dtype === "f16" && baseDtype === "bf16" ? 1e-3 : 1e-9;
    for (const [name, { data }] of Object.entries(want))
      expect(nmse(got[name]!.data, data), describeDifference(got[name]!.data, data)).toBeLessThan(
        tolerance,
      );
  }
});

it("refuses coded weights on WebGPU", () => {
  expect(() =>
    createOnnxEngine({ weights: sourceOf(weights), baseDtype: "nf4", provider: "webgpu" }),
  ).toThrow(expect.objectContaining({ code: "unsupported-base-dtype" }) as Error);
});
