/** @file Text of generated kernels without reductions: elementwise maps. */
import { columnLoop, storeElements } from "./column-loop.ts";
import { newScope } from "./expression.ts";
import { bodyOf, type Draft, type GeneratedKernel, type Store } from "./kernel-draft.ts";
import type { Space } from "./kernel-space.ts";

/** No reductions: every thread takes one vector of one row. */
export function mapKernel(stores: readonly Store[], space: Space, draft: Draft): GeneratedKernel {
  const { rows, columns } = space;
  const packs = columns / draft.width;
  const row = newScope("row");
  const body = columnLoop(draft, row, { space, threads: 1, steps: 1, isCached: false }, (scope) =>
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
