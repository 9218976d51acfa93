/** @file Text of generated kernels: elementwise maps, maps with reductions along rows, and general reductions. */
import type { Node } from "../../../ir/node.ts";
import { type Shape, sizeOf } from "../../../tensor/shape.ts";
import { elementOf, newScope, offsetOf, parameterOf, type Scope } from "./expression.ts";
import { isReduction } from "./graph.ts";
import { COLUMN, columnAxis, type Index, plain, split } from "./indices.ts";
import {
  bodyOf,
  type Draft,
  newDraft,
  packType,
  type Space,
  type Store,
  uniquePacks,
  widthOf,
} from "./kernel-draft.ts";
import type { Value } from "./value.ts";

/** A kernel's code without its name, and how to launch it. */
export interface GeneratedKernel {
  /** Everything after `KERNEL name`. */
  readonly body: string;
  readonly parameters: readonly Value[];
  readonly grid: number;
  readonly threads: number;
}

const MAX_CACHED = 4;

/** The space in which `node` is computed: rows of its reduced axes, or of its last axis. */
export function spaceOf(node: Node): Space | undefined {
  const source = isReduction(node) ? node.inputs[0]! : node;
  const size = sizeOf(source.shape);
  if (!isReduction(node)) {
    const columns = source.shape.findLast((dim) => dim !== 1) ?? 1;
    return { rows: size / columns, columns };
  }
  const axes = [...(node.attrs["axes"] as readonly number[])].sort((a, b) => a - b);
  const wide = axes.filter((axis) => source.shape[axis] !== 1);
  const first = wide[0] ?? source.shape.length;
  const isTrailing = source.shape
    .slice(first)
    .every((dim, i) => dim === 1 || wide.includes(first + i));
  if (!isTrailing) return undefined;
  const columns = wide.reduce((product, axis) => product * source.shape[axis]!, 1);
  return { rows: size / columns, columns };
}

/** Coordinates of `shape` for row `row` and, when the shape has the space's columns, column c. */
function coordinates(shape: Shape, { rows, columns }: Space): Index[] {
  if (sizeOf(shape) === rows) return split(plain("row"), shape);
  const axis = columnAxis(shape, columns)!;
  return [...split(plain("row"), shape.slice(0, axis)), ...split(COLUMN, shape.slice(axis))];
}

/**
 * One kernel for `stores` over `space`; reductions among them run along rows.
 * @throws GroupMismatch when one store needs another row of a reduction that this kernel computes
 */
export function rowKernel(
  stores: readonly Store[],
  space: Space,
  valueOf: (node: Node) => Value | undefined,
): GeneratedKernel {
  const { rows, columns } = space;
  const reducing = stores.filter(({ node }) => isReduction(node));
  const width = widthOf(stores, columns);
  const draft = newDraft(width, valueOf);
  if (reducing.length === 0) return mapKernel(stores, space, draft);
  const packsInRow = columns / width;
  const isWarp = packsInRow <= 128;
  const threads = isWarp ? 32 : Math.min(512, Math.ceil(packsInRow / 2 / 32) * 32);
  const steps = Math.ceil(packsInRow / threads);
  const isCached = steps <= MAX_CACHED;
  const row = newScope("row");
  for (const level of levelsOf(reducing, valueOf)) {
    row.lines.push(...reductionPhase(draft, level, row, { space, threads, steps, isCached }));
  }
  const rowStores = stores.filter(({ node }) => isReduction(node) || sizeOf(node.shape) === rows);
  const wideStores = stores.filter((store) => !rowStores.includes(store));
  if (wideStores.length > 0)
    row.lines.push(
      ...loop(draft, row, { space, threads, steps, isCached }, (scope) =>
        storeElements(draft, wideStores, space, scope),
      ),
    );
  for (const { node, value, accumulate } of rowStores) {
    const element = elementOf(draft, node, split(plain("row"), node.shape), row);
    const at = `${parameterOf(draft, value)}[${offsetOf(value, split(plain("row"), node.shape), node.shape).text}]`;
    row.lines.push(`if (tid == 0) put(${at}, ${accumulate ? `value(${at}) + ` : ""}${element});`);
  }
  const cached = isCached
    ? uniquePacks(draft).map(({ name, value }) => `${packType(value, width)} ${name}[${steps}];`)
    : [];
  const perBlock = isWarp ? 4 : 1;
  const head = isWarp
    ? [
        `const u32 row = blockIdx.x * 4u + (threadIdx.x >> 5), tid = threadIdx.x & 31;`,
        `if (row >= ${rows}u) return;`,
      ]
    : [`const u32 row = blockIdx.x, tid = threadIdx.x;`, "__shared__ float scratch[32];"];
  return {
    body: bodyOf(draft, stores, [...head, ...cached, ...row.lines]),
    parameters: [...draft.parameters.keys()],
    grid: Math.ceil(rows / perBlock),
    threads: isWarp ? 128 : threads,
  };
}

interface Loop {
  readonly space: Space;
  readonly threads: number;
  readonly steps: number;
  readonly isCached: boolean;
}

/** A loop over the columns of a row, `width` at a time; `fill` adds the code for one element. */
function loop(
  draft: Draft,
  row: Scope,
  { space: { columns }, threads, steps, isCached }: Loop,
  fill: (scope: Scope) => string[],
): string[] {
  const vector = newScope("vector", row);
  const element = newScope("element", vector);
  const before = new Set(draft.packs.map(({ name }) => name));
  const after = fill(element);
  const { width } = draft;
  const loads = draft.packs
    .filter((pack) => pack.scope === element && !(isCached && before.has(pack.name)))
    .map(({ name, value, address }) => {
      const source = `*(const ${packType(value, width)}*)(${parameterOf(draft, value)} + ${address.replace(/\bc\b/g, "c0")})`;
      return isCached
        ? `${name}[it] = ${source};`
        : `const ${packType(value, width)} ${name} = ${source};`;
    });
  const lines = isCached
    ? element.lines.map((line) => line.replace(/\b(x\d+)\.at\[e\]/g, "$1[it].at[e]"))
    : element.lines;
  return [
    isCached ? "#pragma unroll" : "#pragma unroll 1",
    `for (u32 it = 0; it < ${steps}u; it++) {`,
    `const u32 c0 = (it * ${threads}u + tid) * ${width}u;`,
    ...(columns % (threads * width) === 0 ? [] : [`if (c0 >= ${columns}u) break;`]),
    ...vector.lines,
    ...loads,
    ...declarations(after),
    "#pragma unroll",
    `for (u32 e = 0; e < ${width}u; e++) {`,
    "const u32 c = c0 + e;",
    ...lines,
    "}",
    ...after.filter((line) => line.startsWith("@after ")).map((line) => line.slice(7)),
    "}",
  ];
}

/** Lines that `fill` wants before the element loop. */
function declarations(lines: readonly string[]): string[] {
  return lines.filter((line) => line.startsWith("@before ")).map((line) => line.slice(8));
}

function reductionPhase(draft: Draft, nodes: readonly Node[], row: Scope, shape: Loop): string[] {
  const { space } = shape;
  const variables = nodes.map((node, i) => {
    const name = `r${draft.reductions.size + i}`;
    return { node, name, isMax: node.op.name === "reduceMax" };
  });
  const start = variables.map(
    ({ name, isMax }) => `float ${name} = ${isMax ? "-__int_as_float(0x7f800000)" : "0.f"};`,
  );
  const body = loop(draft, row, shape, (scope) => {
    for (const { node, name, isMax } of variables) {
      const source = node.inputs[0]!;
      const element = elementOf(draft, source, coordinates(source.shape, space), scope);
      scope.lines.push(isMax ? `${name} = fmaxf(${name}, ${element});` : `${name} += ${element};`);
    }
    return [];
  });
  const finish = variables.map(({ node, name, isMax }) => {
    draft.reductions.set(node, name);
    if (shape.threads === 32) return `${name} = ${isMax ? "warp_max" : "warp_sum"}(${name});`;
    return `${name} = block_reduce<${isMax}>(${name}, scratch);`;
  });
  return [...start, ...body, ...finish];
}

/** Reductions in the order in which they depend on each other, independent ones together. */
function levelsOf(stores: readonly Store[], valueOf: (node: Node) => Value | undefined): Node[][] {
  const own = new Set(stores.map(({ node }) => node));
  const levels = new Map<Node, number>();
  const seen = new Map<Node, number>();
  const levelOf = (node: Node): number => {
    const known = seen.get(node);
    if (known !== undefined) return known;
    const below = valueOf(node) ? 0 : Math.max(0, ...node.inputs.map(levelOf));
    const level = own.has(node) ? below + 1 : below;
    seen.set(node, level);
    if (own.has(node)) levels.set(node, level);
    return level;
  };
  for (const { node } of stores) levelOf(node);
  const count = Math.max(...levels.values());
  return Array.from({ length: count }, (_, i) =>
    [...levels].filter(([, level]) => level === i + 1).map(([node]) => node),
  ).filter((nodes) => nodes.length > 0);
}

/** Code that stores one element of each of `stores`: into a vector register when the layout allows. */
function storeElements(
  draft: Draft,
  stores: readonly Store[],
  space: Space,
  scope: Scope,
): string[] {
  const { width } = draft;
  const around: string[] = [];
  for (const [i, { node, value, accumulate }] of stores.entries()) {
    const indices = coordinates(node.shape, space);
    const element = elementOf(draft, node, indices, scope);
    const pointer = parameterOf(draft, value);
    const offset = offsetOf(value, indices, node.shape);
    if (width > 1 && offset.column === "unit") {
      const target = `*(${packType(value, width)}*)(${pointer} + ${offset.text.replace(/\bc\b/g, "c0")})`;
      around.push(
        `@before ${packType(value, width)} o${i}${accumulate ? ` = ${target}` : ""};`,
        `@after ${target} = o${i};`,
      );
      scope.lines.push(`put(o${i}.at[e], ${accumulate ? `value(o${i}.at[e]) + ` : ""}${element});`);
    } else {
      const at = `${pointer}[${offset.text}]`;
      scope.lines.push(`put(${at}, ${accumulate ? `value(${at}) + ` : ""}${element});`);
    }
  }
  return around;
}

/** No reductions: every thread takes one vector of one row. */
function mapKernel(stores: readonly Store[], space: Space, draft: Draft): GeneratedKernel {
  const { rows, columns } = space;
  const packs = columns / draft.width;
  const row = newScope("row");
  const body = loop(draft, row, { space, threads: 1, steps: 1, isCached: false }, (scope) =>
    storeElements(draft, stores, space, scope),
  );
  // the loop over columns becomes this thread's one vector
  const inner = body
    .slice(2, -1)
    .filter((line) => !line.startsWith("if (c0 >=") && !line.startsWith("const u32 c0 ="));
  const total = rows * packs;
  const lines = [
    `for (u32 i = blockIdx.x * 256u + threadIdx.x; i < ${total}u; i += gridDim.x * 256u) {`,
    packs === 1
      ? "const u32 row = i, c0 = 0u;"
      : `const u32 row = i / ${packs}u, c0 = i % ${packs}u * ${draft.width}u;`,
    ...row.lines,
    ...inner,
    "}",
  ];
  return {
    body: bodyOf(draft, stores, lines),
    parameters: [...draft.parameters.keys()],
    grid: Math.max(1, Math.min(Math.ceil(total / 256), 132 * 64)),
    threads: 256,
  };
}

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
