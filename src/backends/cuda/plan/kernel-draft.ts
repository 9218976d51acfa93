/** @file A generated kernel under construction: its parameters, vector registers and reductions. */
import type { Node } from "../../../ir/node.ts";
import { sizeOf } from "../../../tensor/shape.ts";
import { isAligned, type KernelText, type Scope } from "./expression.ts";
import { isReduction } from "./graph.ts";
import { plain, split } from "./indices.ts";
import type { Storage, Value } from "./value.ts";

/** A value that a generated kernel writes. */
export interface Store {
  readonly node: Node;
  readonly value: Value;
  /** Add to what is there. */
  readonly accumulate: boolean;
}

/** A kernel's code without its name, and how to launch it. */
export interface GeneratedKernel {
  /** Everything after `KERNEL name`. */
  readonly body: string;
  readonly parameters: readonly Value[];
  readonly grid: number;
  readonly threads: number;
}

const C_TYPE: Readonly<Record<Storage, string>> = {
  bf16: "bf16",
  f16: "f16",
  f32: "f32",
  i32: "i32",
  u8: "u8",
};

/** What the parts of a kernel share while it is written. */
export interface Draft extends KernelText {
  readonly packs: { name: string; value: Value; address: string; scope: Scope }[];
  readonly reductions: Map<Node, string>;
}

/** @param valueOf the stored value of a node that this kernel only reads */
export function newDraft(width: number, valueOf: (node: Node) => Value | undefined): Draft {
  const draft: Draft = {
    width,
    valueOf,
    parameters: new Map(),
    names: 0,
    ids: new Map(),
    packs: [],
    reductions: new Map(),
    pack(value, address, scope) {
      const known = draft.packs.find(
        (pack) => pack.scope === scope && pack.value === value && pack.address === address,
      );
      if (known) return known.name;
      const same = draft.packs.find((pack) => pack.value === value && pack.address === address);
      const name = same?.name ?? `x${draft.packs.length}`;
      draft.packs.push({ name, value, address, scope });
      return name;
    },
    reductionOf(node, indices) {
      const expected = split(plain("row"), node.shape);
      return expected.every((index, i) => index.text === indices[i]!.text) &&
        expected.length === indices.length
        ? draft.reductions.get(node)
        : undefined;
    },
  };
  return draft;
}

/** Vector width: 16 bytes of the narrowest large value, if every stored matrix allows it. */
export function widthOf(stores: readonly Store[], columns: number): number {
  for (const width of [8, 4, 2]) {
    const wide = stores.filter(({ value }) => value.size > 1);
    const fits = wide.every(
      ({ node, value }) =>
        isReduction(node) || sizeOf(node.shape) < columns || isAligned(value, columns, width),
    );
    if (columns % width === 0 && fits) return width;
  }
  return 1;
}

/** Vector registers by name. */
export function uniquePacks(draft: Draft): { name: string; value: Value }[] {
  return [...new Map(draft.packs.map((pack) => [pack.name, pack])).values()];
}

/** The C type of `width` elements of a value. */
export function packType(value: Value, width: number): string {
  return `Pack<${C_TYPE[value.storage]}, ${width}>`;
}

/** The parameters and lines of a kernel. */
export function bodyOf(draft: Draft, stores: readonly Store[], lines: readonly string[]): string {
  const written = new Set(stores.map(({ value }) => value));
  const parameters = [...draft.parameters].map(([value, name]) => {
    const type = C_TYPE[value.storage];
    return written.has(value) ? `${type}* ${name}` : `const ${type}* __restrict__ ${name}`;
  });
  return `(${parameters.join(", ")}) {\n${lines.join("\n")}\n}\n`;
}
