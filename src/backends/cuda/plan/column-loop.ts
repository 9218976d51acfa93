/** @file The loop of a generated kernel over the columns of a row, a vector at a time, and the stores in it. */
import { elementOf, newScope, offsetOf, parameterOf, type Scope, wide } from "./expression.ts";
import { type Draft, packType, type Store } from "./kernel-draft.ts";
import { coordinates, type Space } from "./kernel-space.ts";

/** How the threads of a row go over its columns. */
export interface ColumnLoop {
  readonly space: Space;
  readonly threads: number;
  readonly steps: number;
  readonly isCached: boolean;
}

/** A loop over the columns of a row, `width` at a time; `fill` adds the code for one element. */
export function columnLoop(
  draft: Draft,
  row: Scope,
  { space: { columns }, threads, steps, isCached }: ColumnLoop,
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

/** Code that stores one element of each of `stores`: into a vector register when the layout allows. */
export function storeElements(
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
    const text = wide(value, offset.text);
    if (width > 1 && offset.column === "unit") {
      const target = `*(${packType(value, width)}*)(${pointer} + ${text.replace(/\bc\b/g, "c0")})`;
      around.push(
        `@before ${packType(value, width)} o${i}${accumulate ? ` = ${target}` : ""};`,
        `@after ${target} = o${i};`,
      );
      scope.lines.push(`put(o${i}.at[e], ${accumulate ? `value(o${i}.at[e]) + ` : ""}${element});`);
    } else {
      const at = `${pointer}[${text}]`;
      scope.lines.push(`put(${at}, ${accumulate ? `value(${at}) + ` : ""}${element});`);
    }
  }
  return around;
}
