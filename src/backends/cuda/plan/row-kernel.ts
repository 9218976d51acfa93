/** @file Text of generated kernels over rows: elementwise maps with reductions along each row. */
import type { Node } from "../../../ir/node.ts";
import { sizeOf } from "../../../tensor/shape.ts";
import { type ColumnLoop, columnLoop, storeElements } from "./column-loop.ts";
import { elementOf, newScope, offsetOf, parameterOf, type Scope } from "./expression.ts";
import { isReduction } from "./graph.ts";
import { plain, split } from "./indices.ts";
import {
  bodyOf,
  type Draft,
  type GeneratedKernel,
  newDraft,
  packType,
  type Store,
  uniquePacks,
  widthOf,
} from "./kernel-draft.ts";
import { coordinates, type Space } from "./kernel-space.ts";
import { mapKernel } from "./map-kernel.ts";
import type { Value } from "./value.ts";

const MAX_CACHED = 4;

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
      ...columnLoop(draft, row, { space, threads, steps, isCached }, (scope) =>
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

function reductionPhase(
  draft: Draft,
  nodes: readonly Node[],
  row: Scope,
  shape: ColumnLoop,
): string[] {
  const { space } = shape;
  const variables = nodes.map((node, i) => {
    const name = `r${draft.reductions.size + i}`;
    return { node, name, isMax: node.op.name === "reduceMax" };
  });
  const start = variables.map(
    ({ name, isMax }) => `float ${name} = ${isMax ? "-__int_as_float(0x7f800000)" : "0.f"};`,
  );
  const body = columnLoop(draft, row, shape, (scope) => {
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
