/** @file Calls of the kernels for products with one short side; see kernels/skinny.cu. */
import { timeOnDevice } from "../device.ts";
import { expectModule, type Kernel, loadModule } from "../kernels.ts";
import type { PlanContext } from "./context.ts";
import type { PlanGraph } from "./graph.ts";
import { type GemmCall, locate, type Matrix } from "./products.ts";
import type { Value } from "./value.ts";

/** out (T, N) = x (T, K) · w (N, K)ᵀ for up to four parts that share T, N and strides. */
export interface RowsSpec {
  readonly T: number;
  readonly N: number;
  readonly parts: readonly {
    readonly x: Matrix;
    readonly w: Matrix;
    readonly out: Matrix;
    readonly K: number;
  }[];
}

/** out[f · strideF + n · strideN] += factor · x (T, F)ᵀ · g (T, N) for up to four parts. */
export interface TokensSpec {
  readonly T: number;
  readonly N: number;
  readonly factor: number;
  readonly strideF: number;
  readonly strideN: number;
  readonly parts: readonly {
    readonly x: Matrix;
    readonly g: Matrix;
    readonly out: Value;
    readonly F: number;
  }[];
}

const FILES = ["skinny"];
const MAX_PARTS = 4;
const MAX_SHORT = 64;
/** Blocks that fill a large GPU a few times over. */
const WANTED_BLOCKS = 528;
/** Memory that all calls of an engine share: counters that are zero between calls, then partial sums. */
export const SKINNY: { readonly bytes: number; readonly counters: number } = {
  bytes: 32 << 20,
  counters: 64 << 10,
};
const POINTERS = "p".repeat(3 * MAX_PARTS);

/** Whether kernels may read and write the matrix 16 bytes at a time. */
export function isAligned({ value, offset, ld }: Matrix): boolean {
  return (value.storage === "bf16" || value.storage === "f16") && offset % 8 === 0 && ld % 8 === 0;
}

/** Whether products of `parts` parts with a side of `N` are short enough. */
export function isShort(N: number, parts: number): boolean {
  return N % 8 === 0 && N <= MAX_SHORT && parts <= MAX_PARTS;
}

/** `values` filled up to four, as the kernels' tables want them. */
export function four(values: readonly number[]): number[] {
  return Array.from({ length: MAX_PARTS }, (_, i) => values[i] ?? 0);
}

type SkinnyContext = Pick<PlanContext, "device"> & { readonly plan: Pick<PlanGraph, "precision"> };

/** What the kernels of a short side of `N` are compiled with. */
export function shortDefines({ plan }: SkinnyContext, N: number): Record<string, number> {
  return { SHORT: N, USE_F16: plan.precision === "f16" ? 1 : 0 };
}

function kernelOf(context: PlanContext, name: string, parameters: string, N: number): Kernel {
  return loadModule(context.device, FILES, shortDefines(context, N)).kernel(name, parameters);
}

/** Median of a few timed runs, in milliseconds. */
export function timed({ device }: Pick<PlanContext, "device">, run: () => void): number {
  run();
  const times = Array.from({ length: 5 }, () => timeOnDevice(device, run)).sort((a, b) => a - b);
  return times[2]!;
}

/** The call, or undefined when the kernel does not take these sizes. */
export function rowsCall(context: PlanContext, { T, N, parts }: RowsSpec): GemmCall | undefined {
  const fits = parts.every(({ x, w, out, K }) => K % 32 === 0 && [x, w, out].every(isAligned));
  const [first] = parts;
  const isAlike = parts.every(({ x, out }) => x.ld === first!.x.ld && out.ld === first!.out.ld);
  if (!fits || !isAlike || !isShort(N, parts.length)) return undefined;
  expectModule(context.device, FILES, shortDefines(context, N));
  let kernel: Kernel | undefined;
  const enqueue = (): void => {
    const tables = [
      ...four(parts.map(({ x }) => locate(x))),
      ...four(parts.map(({ w }) => locate(w))),
      ...four(parts.map(({ out }) => locate(out))),
      ...four(parts.map(({ K }) => K)),
      ...four(parts.map(({ w }) => w.ld)),
    ];
    kernel!.launch(
      [Math.ceil(T / 32), parts.length],
      256,
      [...tables, T, first!.x.ld, first!.out.ld],
      8 * 32 * N * 4,
    );
  };
  return {
    reads: parts.flatMap(({ x, w }) => [x.value, w.value]),
    prepare() {
      kernel ??= kernelOf(context, "skinny_rows", `${POINTERS}iiiiiiiiiii`, N);
      return timed(context, enqueue);
    },
    enqueue,
  };
}

/**
 * The call, or undefined when the kernel does not take these sizes.
 * Partial sums and counters are in the engine's `skinny` memory.
 */
export function tokensCall(context: PlanContext, spec: TokensSpec): GemmCall | undefined {
  const { T, N, parts, factor, strideF, strideN } = spec;
  const [first] = parts;
  const fits = parts.every(
    ({ x, g, F }) =>
      F % 8 === 0 && isAligned(x) && isAligned(g) && x.ld === first!.x.ld && g.ld === first!.g.ld,
  );
  const { blocks, splits, starts } = tokensLayout(spec);
  const bytes = SKINNY.counters + blocks * splits * 64 * N * 4;
  if (!fits || !isShort(N, parts.length) || blocks * 4 > SKINNY.counters || bytes > SKINNY.bytes)
    return undefined;
  expectModule(context.device, FILES, shortDefines(context, N));
  context.scratch.bytes = Math.max(
    context.scratch.bytes,
    ...parts.map(({ F }) => F * N * 4), // results are float32
  );
  let kernel: Kernel | undefined;
  const launch = (outs: readonly number[]): void => {
    const tables = [
      ...four(parts.map(({ x }) => locate(x))),
      ...four(parts.map(({ g }) => locate(g))),
      ...four(outs),
      ...four(parts.map(({ F }) => F)),
      ...four(starts),
    ];
    const sizes = [
      parts.length,
      T,
      first!.x.ld,
      first!.g.ld,
      strideF,
      strideN,
      factor,
      context.skinny + SKINNY.counters,
      context.skinny,
    ];
    kernel!.launch([blocks, splits], 128, [...tables, ...sizes], 4 * 64 * (72 + N + 8) * 2);
  };
  return {
    reads: parts.flatMap(({ x, g }) => [x.value, g.value]),
    prepare() {
      kernel ??= kernelOf(context, "skinny_tokens", `${POINTERS}iiiiiiiiiiiiiifpp`, N);
      // timing must not touch the gradients
      return timed(context, () => {
        launch(parts.map(() => context.scratch.address));
      });
    },
    enqueue() {
      launch(parts.map(({ out }) => out.region.address));
    },
  };
}

function tokensLayout({ T, parts }: Pick<TokensSpec, "T" | "parts">): {
  blocks: number;
  splits: number;
  starts: number[];
} {
  let blocks = 0;
  const starts = parts.map(({ F }) => (blocks += Math.ceil(F / 64)) - Math.ceil(F / 64));
  const splits = Math.max(1, Math.min(Math.ceil(T / 256), 16, Math.round(WANTED_BLOCKS / blocks)));
  return { blocks, splits, starts };
}
