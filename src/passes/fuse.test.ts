import { describe, expect, it } from "vitest";
import { interpret } from "../backends/reference/interpret.ts";
import type { Node } from "../ir/node.ts";
import { print } from "../ir/print.ts";
import { verify } from "../ir/verify.ts";
import { add } from "../ops/add.ts";
import { constant, input } from "../ops/leaf.ts";
import { matmul } from "../ops/matmul.ts";
import { mul } from "../ops/mul.ts";
import { Random } from "../tensor/random.ts";
import { sizeOf } from "../tensor/shape.ts";
import { tensor } from "../tensor/tensor.ts";
import { fuse } from "./fuse.ts";

const [x, w] = [input("x", [3, 4]), input("w", [5, 4])];
const [a, b] = [input("a", [2, 4]), input("b", [5, 2])];
const residual = input("residual", [3, 5]);
const base = (): Node => matmul(x, w, { transB: true });
const delta = (): Node =>
  mul(matmul(matmul(x, a, { transB: true }), b, { transB: true }), constant(0.5));

/** `root` after the pass, which must not change its values. */
function fused(root: Node): Node {
  const [result] = fuse([root]);
  verify([result!]);
  const random = new Random(1);
  const values = new Map<string, Float64Array>();
  const bind = (name: string, size: number): Float64Array => {
    const known = values.get(name) ?? Float64Array.from({ length: size }, () => random.normal());
    values.set(name, known);
    return known;
  };
  const shapes = new Map([x, w, a, b, residual, bias].map((leaf) => [leaf.name!, leaf.shape]));
  const run = (node: Node): Float64Array =>
    interpret([node], (name) => {
      const shape = shapes.get(name)!;
      return tensor("f64", shape, bind(name, sizeOf(shape)));
    })[0]!.data;
  const want = run(root);
  for (const [i, value] of run(result!).entries()) expect(value).toBeCloseTo(want[i]!, 12);
  return result!;
}
const bias = input("bias", [5]);

describe("fuse", () => {
  it("makes a LoRA layer under a residual one chain of products", () => {
    expect(print({ y: fused(add(residual, add(base(), delta()))) })).toMatchInlineSnapshot(`
      "%x = input() f32 [3, 4]
      %a = input() f32 [2, 4]
      %2 = matmul(%x, %a) {transA: false, transB: true} f32 [3, 2]
      %b = input() f32 [5, 2]
      %w = input() f32 [5, 4]
      %residual = input() f32 [3, 5]
      %6 = gemm(%x, %w, %residual) {alpha: 1, transA: false, transB: true} f32 [3, 5]
      %7 = gemm(%2, %b, %6) {alpha: 0.5, transA: false, transB: true} f32 [3, 5]
      → y = %7"
    `);
  });

  it("sums in the order of the layer without LoRA: (residual + bias) + x·Wᵀ, then the adapter", () => {
    const layer = (y: Node): Node => fused(add(residual, add(y, bias)));
    const adapted = layer(add(base(), delta()));
    expect(adapted.inputs[2]).toEqual(layer(base()));
    expect(print({ y: adapted.inputs[2]!.inputs[2]! })).toContain("add(%residual, %bias)");
  });

  it("starts a product from a broadcast bias", () => {
    expect(print({ y: fused(add(base(), bias)) })).toMatchInlineSnapshot(`
      "%x = input() f32 [3, 4]
      %w = input() f32 [5, 4]
      %bias = input() f32 [5]
      %3 = gemm(%x, %w, %bias) {alpha: 1, transA: false, transB: true} f32 [3, 5]
      → y = %3"
    `);
  });

  it("scales operands inside the product, also of batches", () => {
    const dy = mul(residual, constant(0.5));
    expect(print({ y: fused(matmul(dy, mul(w, constant(4)))) })).toMatchInlineSnapshot(`
      "%residual = input() f32 [3, 5]
      %w = input() f32 [5, 4]
      %2 = scaledMatmul(%residual, %w) {transA: false, transB: false, alpha: 2} f32 [3, 4]
      → y = %2"
    `);
  });

  it("leaves a product that another node reads", () => {
    const product = base();
    const [sum, same] = fuse([add(product, residual), product]);
    expect(same).toBe(product);
    expect(sum!.op.name).toBe("add");
  });
});
