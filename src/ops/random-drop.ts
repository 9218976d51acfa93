import type { OnnxEmitter, OnnxValue } from "../ir/rules.ts";
import { hash32 } from "../tensor/random.ts";
import { type Shape, sizeOf } from "../tensor/shape.ts";
import { defineOp, type Op } from "./define.ts";

/**
 * True with probability `p`: at element i when hash32(hash32(seed, stream), i) < p·2³². The same on every engine, and
 * again when a checkpointed block is recomputed. `seed` is an integer scalar.
 */
export const randomDrop: Op<["seed"], { shape: Shape; p: number; stream: number }> = defineOp(
  "randomDrop",
  {
    inputs: ["seed"],
    infer: ({ shape }) => ({ shape, dtype: "bool" }),
    evaluate({ seed, shape, p, stream }) {
      const key = hash32(seed.data[0]! >>> 0, stream);
      const threshold = p * 2 ** 32;
      return Float64Array.from({ length: sizeOf(shape) }, (_, i) =>
        hash32(key, i) < threshold ? 1 : 0,
      );
    },
    onnx(emit, { seed, shape, p, stream }) {
      const range = emit.node("Range", [int(emit, 0), int(emit, sizeOf(shape)), int(emit, 1)]);
      const counters = emit.node("Cast", [range], { to: UINT32 });
      const key = emitHash(emit, emit.node("Cast", [seed], { to: UINT32 }), word(emit, stream));
      const bits = emitHash(emit, key, emit.node("Reshape", [counters, emit.ints(shape)]));
      return emit.node("Less", [bits, word(emit, Math.ceil(p * 2 ** 32))]);
    },
    cases: [
      {
        shapes: { seed: [] },
        ids: { seed: 1000 },
        attrs: { shape: [8, 16], p: 0.25, stream: 3 },
        noGradient: "random, no float input",
      },
      {
        shapes: { seed: [] },
        ids: { seed: 1000 },
        attrs: { shape: [12], p: 0.5, stream: 3 },
        known: { inputs: { seed: [7] }, output: [0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1, 1] },
        noGradient: "random, no float input",
      },
      {
        shapes: { seed: [] },
        ids: { seed: 1000 },
        attrs: { shape: [3], p: 0, stream: 0 },
        known: { inputs: { seed: [7] }, output: [0, 0, 0] },
        noGradient: "random, no float input",
      },
    ],
  },
);

const UINT32 = 12;

function int(emit: OnnxEmitter, value: number): OnnxValue {
  return emit.constant({ dtype: "i64", shape: [], data: BigInt64Array.of(BigInt(value)) });
}

function word(emit: OnnxEmitter, value: number): OnnxValue {
  return emit.node("Cast", [int(emit, value)], { to: UINT32 });
}

/** `hash32` on uint32 values that broadcast. */
function emitHash(emit: OnnxEmitter, key: OnnxValue, counter: OnnxValue): OnnxValue {
  const xor = (a: OnnxValue, b: OnnxValue): OnnxValue => emit.node("BitwiseXor", [a, b]);
  const fold = (x: OnnxValue, bits: number): OnnxValue =>
    xor(x, emit.node("BitShift", [x, word(emit, bits)], { direction: "RIGHT" }));
  const mix = (x: OnnxValue): OnnxValue => {
    const once = emit.node("Mul", [fold(x, 16), word(emit, 0x7feb352d)]);
    return fold(emit.node("Mul", [fold(once, 15), word(emit, 0x846ca68b)]), 16);
  };
  return mix(xor(mix(xor(counter, emit.node("Mul", [key, word(emit, 0x9e3779b9)]))), key));
}
