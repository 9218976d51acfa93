/** @file Calls that read a layer's gradient once for both of its adapter products; see kernels/skinny-both.cu. */
import { expectModule, type Kernel, loadModule } from "../kernels.ts";
import type { PlanContext } from "./context.ts";
import type { PlanGraph } from "./graph.ts";
import { type GemmCall, locate, type Matrix } from "./products.ts";
import { four, isAligned, isShort, shortDefines, SKINNY, timed } from "./skinny.ts";
import type { Value } from "./value.ts";

/** low (T, N) = x (T, F) · w (N, F)ᵀ and high (F, N) += factor · xᵀ · u (T, N), for up to four parts. */
export interface BothSpec {
  readonly T: number;
  readonly N: number;
  readonly factor: number;
  readonly parts: readonly {
    readonly x: Matrix;
    readonly w: Matrix;
    readonly u: Matrix;
    readonly low: Matrix;
    readonly high: Value;
    readonly F: number;
  }[];
}

/** What of a plan the call needs. */
export type BothContext = Pick<PlanContext, "device" | "skinny" | "scratch"> & {
  readonly plan: Pick<PlanGraph, "precision">;
};

/** Features and tokens of a tile, as in the kernel. */
const [WIDE, TOKENS] = [512, 32];
const MAX_BOTH = 32;
const TABLE = "p".repeat(4);
const FILES = ["skinny", "skinny-both"];

/** Bytes of shared memory that a block needs for `tiles` tiles. */
function sharedBytes(N: number, tiles: number): number {
  return tiles * TOKENS * (WIDE + 8 + N + 8) * 2 + 8 * TOKENS * (N + 4) * 4;
}

/** How many tiles a block holds, and how many blocks a multiprocessor. */
interface Shape {
  readonly tiles: number;
  readonly blocks: number;
}

/** Ways to compute it, of which the fastest may be taken; none when the kernels do not take these sizes. */
export function bothCalls(context: BothContext, spec: BothSpec): GemmCall[] {
  const { N, parts } = spec;
  const [first] = parts as [BothSpec["parts"][number]];
  const fits = parts.every(
    ({ x, w, u, low, F }) =>
      F % 8 === 0 &&
      w.ld === F &&
      [x, w, u, low].every(isAligned) &&
      (["x", "u", "low"] as const).every((name) => ({ x, u, low })[name].ld === first[name].ld),
  );
  if (!fits || !isShort(N, parts.length) || N > MAX_BOTH) return [];
  const shared = context.device.info.sharedBytes;
  const deepest = [4, 3, 2].find((tiles) => sharedBytes(N, tiles) <= shared);
  const shapes: Shape[] = deepest === undefined ? [] : [{ tiles: deepest, blocks: 1 }];
  if (2 * sharedBytes(N, 2) <= shared - 1024) shapes.push({ tiles: 2, blocks: 2 });
  return shapes.flatMap((shape) => callOf(context, spec, shape) ?? []);
}

function callOf(context: BothContext, spec: BothSpec, shape: Shape): GemmCall | undefined {
  const { T, N, parts, factor } = spec;
  const [first] = parts as [BothSpec["parts"][number]];
  const { multiprocessors } = context.device.info;
  const { blocks, splits, starts } = layoutOf(spec, multiprocessors * shape.blocks);
  const lowBytes = blocks * T * N * 4;
  if (SKINNY.counters + lowBytes + splits * blocks * WIDE * N * 4 > SKINNY.bytes) return undefined;
  context.scratch.bytes = Math.max(context.scratch.bytes, ...parts.map(({ F }) => F * N * 4));
  expectModule(context.device, FILES, definesOf(context, N, shape));
  let kernels: ReturnType<typeof kernelsOf> | undefined;
  const launch = (outs: readonly number[]): void => {
    const tables = [four(parts.map(({ F }) => F)), four(starts)].flat();
    const pointers = (["x", "w", "u"] as const).flatMap((name) =>
      four(parts.map((part) => locate(part[name]))),
    );
    const partial = context.skinny + SKINNY.counters;
    const halves = [partial, partial + lowBytes];
    kernels!.products.launch(
      [blocks, splits],
      256,
      [...pointers, ...tables, parts.length, T, first.x.ld, first.u.ld, ...halves],
      sharedBytes(N, shape.tiles),
    );
    const packs = (parts.length * T + blocks * WIDE) * (N / 4);
    kernels!.sums.launch([Math.ceil(packs / 256)], 256, [
      ...four(parts.map(({ low }) => locate(low))),
      ...[...four(outs), ...tables, parts.length, blocks, splits, T, first.low.ld, factor],
      ...halves,
    ]);
  };
  return {
    reads: parts.flatMap(({ x, u }) => [x.value, u.value]),
    prepare() {
      kernels ??= kernelsOf(context, N, shape);
      // timing must not touch the gradients
      return timed(context, () => {
        launch(parts.map(() => context.scratch.address));
      });
    },
    enqueue() {
      launch(parts.map(({ high }) => high.region.address));
    },
  };
}

function definesOf(
  context: BothContext,
  N: number,
  { tiles, blocks }: Shape,
): Record<string, number> {
  return { ...shortDefines(context, N), TILES_AHEAD: tiles, BLOCKS: blocks };
}

function kernelsOf(
  context: BothContext,
  N: number,
  shape: Shape,
): { products: Kernel; sums: Kernel } {
  const module = loadModule(context.device, FILES, definesOf(context, N, shape));
  return {
    products: module.kernel("skinny_both", `${TABLE.repeat(3)}iiiiiiiiiiiipp`),
    sums: module.kernel("skinny_both_sums", `${TABLE.repeat(2)}iiiiiiiiiiiiifpp`),
  };
}

/** Blocks of features, and parts of the tokens so that there are about as many blocks as run at once. */
function layoutOf(
  { T, parts }: BothSpec,
  atOnce: number,
): { blocks: number; splits: number; starts: number[] } {
  let blocks = 0;
  const starts = parts.map(({ F }) => (blocks += Math.ceil(F / WIDE)) - Math.ceil(F / WIDE));
  const tiles = Math.ceil(T / TOKENS);
  const wanted = Math.max(1, Math.min(tiles, Math.floor(atOnce / blocks)));
  return { blocks, splits: Math.ceil(tiles / Math.ceil(tiles / wanted)), starts };
}
