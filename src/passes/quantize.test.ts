import { describe, expect, it } from "vitest";
import { interpret } from "../backends/reference/interpret.ts";
import type { Node } from "../ir/node.ts";
import { topological } from "../ir/graph.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { input, parameter } from "../ops/leaf.ts";
import { matmul } from "../ops/matmul.ts";
import { decodeNf4, encodeInt8Rows, encodeNf4 } from "../tensor/quantize.ts";
import { Random } from "../tensor/random.ts";
import { sizeOf, type Shape } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { isQuantizable, parsePart, quantize, type Storage } from "./quantize.ts";

const [N, C, OUT] = [3, 64, 5];
const random = new Random(2);
const drawn = (shape: Shape): Tensor =>
  tensor(
    "f32",
    shape,
    Float32Array.from({ length: sizeOf(shape) }, () => random.normal()),
  );
const w = parameter("w.weight", [OUT, C]);
const products = [
  matmul(input("x", [N, C]), w, { transB: true }),
  matmul(input("dy", [N, OUT]), w),
  gatherRows(w, input("ids", [2], "i64")),
];
const feeds: Record<string, Tensor> = {
  x: drawn([N, C]),
  dy: drawn([N, OUT]),
  ids: tensor("i64", [2], BigInt64Array.of(4n, 0n)),
};
const weight = drawn([OUT, C]);
const values = weight.data as Float32Array;

/** What is stored of the weight, by part, and the weight that it stands for. */
function stored(storage: "int8" | "nf4"): [Record<string, Tensor>, Float32Array] {
  if (storage === "int8") {
    const { codes, scales } = encodeInt8Rows(values, OUT);
    const parts = { int8: tensor("i8", [OUT, C], codes), scale: tensor("f32", [OUT, 1], scales) };
    return [parts, Float32Array.from(codes, (code, i) => code * scales[Math.floor(i / C)]!)];
  }
  const { codes, absmax } = encodeNf4(values);
  const parts = {
    nf4: tensor("u8", [codes.length], codes),
    absmax: tensor("f32", [absmax.length], absmax),
  };
  return [parts, decodeNf4(codes, absmax)];
}

const namesOf = (roots: readonly Node[]): string[] =>
  topological(roots).flatMap(({ name }) => (name?.startsWith("w.") ? [name] : []));

describe.each(["int8", "nf4"] as const)("%s", (storage) => {
  it("computes what the decoded weight gives, in both directions, to 1e-6", () => {
    const [parts, decoded] = stored(storage);
    const quantized = quantize(products, () => storage);
    const got = interpret(quantized, (name) => parts[parsePart(name)?.part ?? ""] ?? feeds[name]!);
    const whole = tensor("f32", [OUT, C], decoded);
    const want = interpret(products, (name) => (name === "w.weight" ? whole : feeds[name]!));
    for (const [i, { data }] of want.entries())
      for (const [j, value] of data.entries()) expect(got[i]!.data[j]).toBeCloseTo(value, 6);
  });

  it("reads nothing but the parts", () => {
    const names = namesOf(quantize(products, () => storage));
    expect(new Set(names.map((name) => parsePart(name)?.weight))).toEqual(new Set(["w.weight"]));
  });
});

it("widens 16-bit weights where they are read, rows after they are gathered", () => {
  const [product, , rows] = quantize(products, () => "bf16") as [Node, Node, Node];
  expect(product.inputs[1]!.op.name).toBe("cast");
  expect(product.inputs[1]!.inputs[0]).toMatchObject({ name: "w.weight", dtype: "bf16" });
  expect([rows.op.name, rows.inputs[0]!.op.name]).toEqual(["cast", "gatherRows"]);
});

it("leaves f32 weights and those that train alone", () => {
  expect(quantize(products, () => "f32")).toEqual(products);
  const trained = matmul(input("x", [N, C]), parameter("b", [OUT, C], { trainable: true }), {
    transB: true,
  });
  const never = (): Storage => {
    throw new Error("asked for the storage of a trainable parameter");
  };
  expect(quantize([trained], never)).toEqual([trained]);
});

it.each([
  ["model.layers.0.mlp.up_proj.weight", [128, 64], true],
  ["model.layers.0.mlp.up_proj.weight", [128, 60], false],
  ["model.layers.0.norm.weight", [64], false],
  ["lm_head.weight", [128, 64], false],
  ["model.embed_tokens.weight", [128, 64], false],
] as const)("%s %j: kept in few bits: %s", (name, shape, expected) => {
  expect(isQuantizable(name, shape)).toBe(expected);
});
