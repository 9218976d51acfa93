import type { AdamWStep } from "../backend.ts";
import {
  add,
  assemble,
  type Code,
  div,
  get,
  load,
  loop,
  mul,
  set,
  splat,
  sqrt,
  store,
  sub,
} from "./wasm.ts";

/** A trainable parameter and what its optimizer remembers; arrays of one length. */
export interface TrainedArrays {
  readonly value: Float32Array;
  readonly gradient: Float32Array;
  readonly average: Float32Array;
  readonly averageOfSquares: Float32Array;
}

/** L2 norm of all `gradients` together, summed in float64. */
export function globalNorm(gradients: Iterable<Float32Array>): number {
  const sums: [number, number, number, number] = [0, 0, 0, 0]; // so that no addition waits for the one before
  for (const gradient of gradients) addSquares(gradient, sums);
  return Math.sqrt(sums[0] + sums[1] + sums[2] + sums[3]);
}

function addSquares(x: Float32Array, sums: [number, number, number, number]): void {
  let [a, b, c, d] = sums;
  const whole = x.length - (x.length % 4);
  for (let i = 0; i < whole; i += 4) {
    a += x[i]! * x[i]!;
    b += x[i + 1]! * x[i + 1]!;
    c += x[i + 2]! * x[i + 2]!;
    d += x[i + 3]! * x[i + 3]!;
  }
  for (let i = whole; i < x.length; i++) a += x[i]! * x[i]!;
  [sums[0], sums[1], sums[2], sums[3]] = [a, b, c, d];
}

/** Factor that brings gradients of norm `norm` within `maxNorm`, as torch.nn.utils.clip_grad_norm_. */
export function clipFactor(norm: number, maxNorm: number): number {
  return Math.min(1, maxNorm / (norm + 1e-6));
}

/** Elements that are updated at a time, a multiple of four: what they need fits into a core's first cache. */
const CHUNK = 2048;
const BYTES = CHUNK * Float32Array.BYTES_PER_ELEMENT;

/**
 * One AdamW update in place, as torch.optim.AdamW, in f32 vectors of four. `clip` multiplies the gradient, `scale`
 * the learning rate. https://arxiv.org/abs/1711.05101
 */
export function adamw(
  { value, gradient, average, averageOfSquares }: TrainedArrays,
  { step, learningRate, betas: [beta1, beta2], eps, weightDecay }: AdamWStep,
  clip: number,
  scale: number,
): void {
  kernel ??= makeKernel();
  const { run, memory } = kernel;
  const rate = learningRate * scale;
  const numbers = [
    ...[clip, 1 - beta1, beta2, 1 - beta2],
    ...[rate * weightDecay, rate / (1 - beta1 ** step), 1 / Math.sqrt(1 - beta2 ** step), eps],
  ];
  const arrays = [value, gradient, average, averageOfSquares];
  for (let start = 0; start < value.length; start += CHUNK) {
    const size = Math.min(CHUNK, value.length - start);
    for (const [i, array] of arrays.entries())
      memory.set(array.subarray(start, start + size), i * CHUNK);
    run(4 * size, ...numbers);
    for (const [i, array] of arrays.entries())
      if (array !== gradient) array.set(memory.subarray(i * CHUNK, i * CHUNK + size), start);
  }
}

interface Kernel {
  readonly run: (end: number, ...numbers: number[]) => void;
  /** Chunks of value, gradient, average and average of squares, one after another. */
  readonly memory: Float32Array;
}
let kernel: Kernel | undefined;

function makeKernel(): Kernel {
  const AT = 9; // after the parameters: bytes, and eight numbers
  const numbers = Array.from({ length: 8 }, (_, i) => AT + 1 + i);
  const [clip, new1, keep2, new2, decay, stepSize, correction, eps] = numbers.map(get) as Eight;
  const [G, M, V, W] = [AT + 9, AT + 10, AT + 11, AT + 12] as const;
  const [g, m, v, w] = [get(G), get(M), get(V), get(W)] as const;
  const change = div(mul(m, stepSize), add(mul(sqrt(v), correction), eps));
  const body = [
    ...numbers.flatMap((local, i) => set(local, splat(get(1 + i)))),
    ...loop(AT, 0, [
      ...set(G, mul(load(AT, BYTES), clip)),
      ...set(M, load(AT, 2 * BYTES)),
      ...set(M, add(m, mul(sub(g, m), new1))),
      ...set(V, add(mul(load(AT, 3 * BYTES), keep2), mul(mul(g, g), new2))),
      ...set(W, load(AT, 0)),
      ...store(AT, 0, sub(w, add(mul(w, decay), change))),
      ...store(AT, 2 * BYTES, m),
      ...store(AT, 3 * BYTES, v),
    ]),
  ];
  const { run, memory } = assemble(body, { numbers: 8, vectors: 12, bytes: 4 * BYTES });
  return { run, memory: new Float32Array(memory) };
}
type Eight = [Code, Code, Code, Code, Code, Code, Code, Code];

/** `into` += `from`, element by element. */
export function accumulate(into: Float32Array, from: Float32Array): void {
  for (let i = 0; i < into.length; i++) into[i]! += from[i]!;
}
