import type { OnnxEmitter, OnnxValue, OpCase } from "../ir/rules.ts";
import { hash32 } from "../tensor/random.ts";
import { type Shape, sizeOf } from "../tensor/shape.ts";
import { defineOp, type Op } from "./define.ts";

/** What the cases of a random op share: one integer goes in, so there is no gradient. */
export const drawn: Pick<OpCase, "shapes" | "ids" | "noGradient"> = {
  shapes: { seed: [] },
  ids: { seed: 1000 },
  noGradient: "random, no float input",
};

/**
 * False with probability `p`: in row r (all axes but the last) and column c where row·column·site < p·2³², a 32-bit
 * product of odd words: hash32(hash32(seed, k), i) | 1 with k = 0, i = r; k = 1, i = c; k = 2, i = `stream`. Only rows
 * and columns are hashed, not each element. The same on every engine, and again when a checkpointed block is
 * recomputed. `seed` is an integer scalar.  https://en.wikipedia.org/wiki/Universal_hashing
 */
export const randomKeep: Op<["seed"], { shape: Shape; p: number; stream: number }> = defineOp(
  "randomKeep",
  {
    inputs: ["seed"],
    infer: ({ shape }) => ({ shape, dtype: "bool" }),
    evaluate({ seed, shape, p, stream }) {
      const word = (k: number, i: number): number => hash32(hash32(seed.data[0]! >>> 0, k), i) | 1;
      const columns = Int32Array.from({ length: shape.at(-1) ?? 1 }, (_, c) => word(1, c));
      const rows = Int32Array.from({ length: sizeOf(shape.slice(0, -1)) }, (_, r) =>
        Math.imul(word(0, r), word(2, stream)),
      );
      const threshold = p * 2 ** 32;
      return Float64Array.from({ length: sizeOf(shape) }, (_, i) => {
        const [row, column] = [Math.floor(i / columns.length), i % columns.length];
        return Math.imul(rows[row]!, columns[column]!) >>> 0 < threshold ? 0 : 1;
      });
    },
    onnx(emit, { seed, shape, p, stream }) {
      const width = shape.at(-1) ?? 1;
      const columns = words(emit, seed, { k: 1, shape: [1, width], first: 0 });
      const rows = words(emit, seed, { k: 0, shape: [sizeOf(shape) / width, 1], first: 0 });
      const block = stream - (stream % SITES);
      const sites = words(emit, seed, { k: 2, shape: [SITES], first: block });
      const site = emit.node("Gather", [sites, whole(emit, stream - block)]);
      const product = emit.node("Mul", [emit.node("Mul", [rows, site]), columns]);
      const threshold = Math.ceil(p * 2 ** 32);
      const kept =
        threshold === 0
          ? emit.node("Not", [emit.node("Less", [product, word(emit, 0)])])
          : emit.node("Less", [word(emit, threshold - 1), product]);
      return shape.length === 2 ? kept : emit.node("Reshape", [kept, emit.ints(shape)]);
    },
    cases: [
      {
        ...drawn,
        attrs: { shape: [8, 16], p: 0.25, stream: 3 },
      },
      {
        ...drawn,
        attrs: { shape: [2, 2, 8], p: 0.25, stream: 1030 },
      },
      {
        ...drawn,
        attrs: { shape: [12], p: 0.5, stream: 3 },
        known: { inputs: { seed: [7] }, output: [0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1] },
      },
      {
        ...drawn,
        attrs: { shape: [3], p: 0, stream: 0 },
        known: { inputs: { seed: [7] }, output: [1, 1, 1] },
      },
    ],
  },
);

const UINT32 = 12;
/** So many sites get their words at once. */
const SITES = 1024;

function whole(emit: OnnxEmitter, value: number): OnnxValue {
  return emit.constant({ dtype: "i64", shape: [], data: BigInt64Array.of(BigInt(value)) });
}

/** A uint32 scalar, one node for each value. */
function word(emit: OnnxEmitter, value: number): OnnxValue {
  return shared(emit, `word ${value}`, () =>
    emit.node("Cast", [whole(emit, value)], { to: UINT32 }),
  );
}

/** Odd words of the counters from `first` on, in `shape`: the same node for all that read them. */
function words(
  emit: OnnxEmitter,
  seed: OnnxValue,
  { k, shape, first }: { k: number; shape: Shape; first: number },
): OnnxValue {
  return shared(emit, `words ${seed} ${k} ${shape.join()} ${first}`, () => {
    const key = shared(emit, `words ${seed} ${k}`, () =>
      emitHash(emit, emit.node("Cast", [seed], { to: UINT32 }), word(emit, k)),
    );
    const data = BigInt64Array.from({ length: sizeOf(shape) }, (_, i) => BigInt(first + i));
    const counters = emit.constant({ dtype: "i64", shape, data });
    const hashed = emitHash(emit, key, emit.node("Cast", [counters], { to: UINT32 }));
    return emit.node("BitwiseOr", [hashed, word(emit, 1)]);
  });
}

function shared(emit: OnnxEmitter, key: string, make: () => OnnxValue): OnnxValue {
  const known = emit.recall(key) ?? make();
  emit.remember(key, known);
  return known;
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
