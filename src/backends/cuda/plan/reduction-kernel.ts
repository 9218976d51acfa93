/** @file Text of generated kernels of reductions that do not run along rows. */
import type { Node } from "../../../ir/node.ts";
import { sizeOf } from "../../../tensor/shape.ts";
import { elementOf, newScope, offsetOf, parameterOf } from "./expression.ts";
import { plain, split } from "./indices.ts";
import { bodyOf, type GeneratedKernel, newDraft, type Store } from "./kernel-draft.ts";
import type { Value } from "./value.ts";

/** A reduction over axes that are not the last ones: lanes over results, the rest of the block along the sum. */
export function reductionKernel(
  { node, value, accumulate }: Store,
  valueOf: (node: Node) => Value | undefined,
): GeneratedKernel {
  const source = node.inputs[0]!;
  const axes = node.attrs["axes"] as readonly number[];
  const kept = source.shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim));
  const reduced = source.shape.map((dim, axis) => (axes.includes(axis) ? dim : 1));
  const [results, count] = [sizeOf(kept), sizeOf(reduced)];
  const lanes = results >= 32 ? 32 : 1;
  const draft = newDraft(1, valueOf);
  const scope = newScope("row");
  const [outer, inner] = [split(plain("o"), kept), split(plain("k"), reduced)];
  const indices = source.shape.map((_, axis) =>
    axes.includes(axis) ? inner[axis]! : outer[axis]!,
  );
  const element = elementOf(draft, source, indices, scope);
  const isMax = node.op.name === "reduceMax";
  const combine = (a: string, b: string): string => (isMax ? `fmaxf(${a}, ${b})` : `${a} + ${b}`);
  const out = `${parameterOf(draft, value)}[${offsetOf(value, split(plain("o"), node.shape), node.shape).text}]`;
  const lines = [
    "__shared__ float part[256];",
    `const u32 lane = threadIdx.x % ${lanes}u, group = threadIdx.x / ${lanes}u, o = blockIdx.x * ${lanes}u + lane;`,
    `float sum = ${isMax ? "-__int_as_float(0x7f800000)" : "0.f"};`,
    `if (o < ${results}u) for (u32 k = group; k < ${count}u; k += ${256 / lanes}u) {`,
    ...scope.lines,
    `sum = ${combine("sum", element)};`,
    "}",
    "part[threadIdx.x] = sum;",
    "__syncthreads();",
    `for (u32 half = ${128 / lanes}u; half > 0; half >>= 1) {`,
    `if (group < half) part[threadIdx.x] = ${combine("part[threadIdx.x]", `part[threadIdx.x + half * ${lanes}u]`)};`,
    "__syncthreads();",
    "}",
    `if (group == 0 && o < ${results}u) put(${out}, ${accumulate ? `value(${out}) + ` : ""}part[lane]);`,
  ];
  return {
    body: bodyOf(draft, [{ node, value, accumulate }], lines),
    parameters: [...draft.parameters.keys()],
    grid: Math.ceil(results / lanes),
    threads: 256,
  };
}
