/** @file Generated code for one element of a graph value: every primitive in terms of its inputs' elements. */
import { LorikeetError } from "../../../errors.ts";
import type { Node } from "../../../ir/node.ts";
import { isFloat } from "../../../tensor/dtype.ts";
import type { Shape } from "../../../tensor/shape.ts";
import { isReduction, scalarOf } from "./graph.ts";
import { broadcasted, type Index, joined, plain, reshaped, shifted } from "./indices.ts";
import { literalText, pointwise } from "./pointwise.ts";
import { isDense, type Value } from "./value.ts";

/** Lines of code in one block, and what is known inside it. */
export interface Scope {
  readonly kind: "row" | "vector" | "element" | "branch";
  readonly parent: Scope | undefined;
  readonly lines: string[];
  readonly known: Map<string, string>;
}

export function newScope(kind: Scope["kind"], parent?: Scope): Scope {
  return { kind, parent, lines: [], known: new Map() };
}

/** What a kernel under construction shares: parameters, names, the width of vector accesses. */
export interface KernelText {
  readonly width: number;
  /** The value that holds `node`, or undefined when it is computed here. */
  valueOf(node: Node): Value | undefined;
  /** Variable with a reduction that this kernel computed for its row. */
  reductionOf(node: Node, indices: readonly Index[]): string | undefined;
  readonly parameters: Map<Value, string>;
  /** Declares a vector register for the load `key` and returns its name; the load runs where `vector` lines go. */
  pack(value: Value, address: string, scope: Scope): string;
  names: number;
  readonly ids: Map<Node, number>;
}

/** Name of the pointer parameter for `value`. */
export function parameterOf(kernel: KernelText, value: Value): string {
  const known = kernel.parameters.get(value);
  if (known) return known;
  const name = `p${kernel.parameters.size}`;
  kernel.parameters.set(value, name);
  return name;
}

/** Variable (or literal) with the element of `node` at `indices`, after lines in `scope` or around it. */
export function elementOf(
  kernel: KernelText,
  node: Node,
  indices: readonly Index[],
  scope: Scope,
): string {
  const scalar = scalarOf(node);
  if (scalar !== undefined) return literalText(scalar);
  const key = `${idOf(kernel, node)}[${indices.map((index) => index.text).join()}]`;
  for (let at: Scope | undefined = scope; at; at = at.parent) {
    const known = at.known.get(key);
    if (known !== undefined) return known;
  }
  const value = kernel.valueOf(node);
  if (value) return loadFloat(kernel, value, { indices, shape: node.shape }, scope);
  if (isReduction(node)) {
    const variable = kernel.reductionOf(node, indices);
    if (variable === undefined) throw new GroupMismatch(node.op.name);
    return variable;
  }
  const { text, at } = computed(kernel, node, indices, scope);
  return define(kernel, { type: "float", text }, at, key);
}

/** Raised when a kernel would need a row's reduction at another row; the planner then keeps the two apart. */
export class GroupMismatch extends Error {}

function idOf(kernel: KernelText, node: Node): number {
  const known = kernel.ids.get(node);
  if (known !== undefined) return known;
  kernel.ids.set(node, kernel.ids.size);
  return kernel.ids.size - 1;
}

/** Code for a value, and its type in C. */
interface Definition {
  readonly type: "float" | "u32";
  readonly text: string;
}

function define(kernel: KernelText, { type, text }: Definition, scope: Scope, key: string): string {
  const name = `v${kernel.names++}`;
  scope.lines.push(`const ${type} ${name} = ${text};`);
  scope.known.set(key, name);
  return name;
}

/** The variable with `text`, defined in `scope` unless it or one around it has it already. */
function defineOnce(kernel: KernelText, definition: Definition, scope: Scope): string {
  const key = `${definition.type} ${definition.text}`;
  for (let at: Scope | undefined = scope; at; at = at.parent) {
    const known = at.known.get(key);
    if (known !== undefined) return known;
  }
  return define(kernel, definition, scope, key);
}

/** The outermost scope where something that moves with the column as `indices` do may stand. */
function homeOf(scope: Scope, indices: readonly Index[]): Scope {
  if (indices.some((index) => index.column !== "none")) return scope;
  let at = scope;
  while (at.parent && at.kind !== "branch" && at.kind !== "row") at = at.parent;
  return at;
}

/** An element of a shape. */
interface Place {
  readonly indices: readonly Index[];
  readonly shape: Shape;
}

type Computed = { text: string; at: Scope };

function computed(
  kernel: KernelText,
  node: Node,
  indices: readonly Index[],
  scope: Scope,
): Computed {
  const { op, inputs } = node;
  const at = homeOf(scope, indices);
  const of = (input: Node, where: readonly Index[]): string => elementOf(kernel, input, where, at);
  const f = pointwise[op.name];
  if (f)
    return { text: f(...inputs.map((input) => of(input, broadcasted(indices, input.shape)))), at };
  const [x] = inputs as [Node];
  switch (op.name) {
    case "reshape":
      return { text: reshapedElement(kernel, x, { indices, shape: node.shape }, at), at };
    case "cast":
      return { text: isFloat(node.dtype) ? of(x, indices) : `truncf(${of(x, indices)})`, at };
    case "transpose": {
      const perm = node.attrs["perm"] as readonly number[];
      return {
        text: of(
          x,
          perm.map((_, axis) => indices[perm.indexOf(axis)]!),
        ),
        at,
      };
    }
    case "slice": {
      const axis = node.attrs["axis"] as number;
      return {
        text: of(x, indices.with(axis, shifted(indices[axis]!, node.attrs["start"] as number))),
        at,
      };
    }
    case "pad":
    case "concat":
      return { text: branched(kernel, node, indices, at), at };
    case "gatherRows":
      return { text: gathered(kernel, node, indices, at), at };
    case "randomMask":
    case "randomKeep":
      return { text: randomElement(kernel, node, indices), at };
    default:
      throw new LorikeetError(
        "unsupported-op",
        `Expected op ${op.name} to have a CUDA kernel or to decompose; it does neither`,
      );
  }
}

/** Through a reshape: a stored source is read by its linear index, which a reshape does not change. */
function reshapedElement(kernel: KernelText, x: Node, place: Place, scope: Scope): string {
  const value = kernel.valueOf(x);
  if (value) return loadFloat(kernel, value, place, scope);
  return elementOf(kernel, x, reshaped(place.indices, place.shape, x.shape), scope);
}

/** pad and concat: the part that the coordinate falls into is computed in a branch of its own. */
function branched(kernel: KernelText, node: Node, indices: readonly Index[], scope: Scope): string {
  const axis = node.attrs["axis"] as number;
  const index = indices[axis]!;
  const name = `v${kernel.names++}`;
  scope.lines.push(`float ${name} = 0.f;`);
  let start = node.op.name === "pad" ? (node.attrs["before"] as number) : 0;
  for (const [i, part] of node.inputs.entries()) {
    const end = start + part.shape[axis]!;
    const branch = newScope("branch", scope);
    const moved: Index = {
      ...shifted(index, -start),
      column: index.column === "none" ? "none" : "other",
    };
    const element = elementOf(kernel, part, indices.with(axis, moved), branch);
    const low = start > 0 ? `${index.text} >= ${start}u && ` : "";
    const word = i === 0 ? "if" : "else if";
    scope.lines.push(
      `${word} (${low}${index.text} < ${end}u) {`,
      ...branch.lines,
      `${name} = ${element};`,
      "}",
    );
    start = end;
  }
  return name;
}

function gathered(kernel: KernelText, node: Node, indices: readonly Index[], scope: Scope): string {
  const [table, ids] = node.inputs as [Node, Node];
  const id = elementOf(kernel, ids, indices.slice(0, -1), scope);
  const isFixed = indices.slice(0, -1).every((index) => index.column === "none");
  const row = defineOnce(
    kernel,
    { type: "u32", text: `(u32)${id}` },
    homeOf(scope, indices.slice(0, -1)),
  );
  const found: Index = { ...plain(row), column: isFixed ? "none" : "other" };
  return elementOf(kernel, table, [found, indices.at(-1)!], scope);
}

function randomElement(kernel: KernelText, node: Node, indices: readonly Index[]): string {
  const [p, stream] = [node.attrs["p"] as number, node.attrs["stream"] as number];
  const seed = kernel.valueOf(node.inputs[0]!);
  if (!seed)
    throw new LorikeetError(
      "unsupported-op",
      "Expected the seed of a random mask to be an input of the program",
    );
  const word = (k: number, counter: string): string =>
    `(hash32(hash32((u32)${parameterOf(kernel, seed)}[0], ${k}u), ${counter}) | 1u)`;
  const threshold = Math.ceil(p * 2 ** 32);
  const [dropped, kept] = ["0.f", node.op.name === "randomKeep" ? "1.f" : literalText(1 / (1 - p))];
  if (threshold > 0xffffffff) return dropped;
  const row = joined(indices.slice(0, -1), node.shape.slice(0, -1)).text;
  const product = [word(0, row), word(1, indices.at(-1)!.text), word(2, `${stream}u`)].join(" * ");
  return `(${product} < ${threshold}u ? ${dropped} : ${kept})`;
}

/** Where the element at `indices` (of `shape`) of `value` is, from its first element. */
export function offsetOf(value: Value, indices: readonly Index[], shape: Shape): Index {
  if (isDense(value)) return joined(indices, shape);
  let [columns, axis] = [1, shape.length];
  while (columns < value.cols && axis > 0) columns *= shape[--axis]!;
  const linear = joined(indices, shape);
  if (columns !== value.cols)
    return {
      text: `(${linear.text} / ${value.cols}u * ${value.ld}u + ${linear.text} % ${value.cols}u)`,
      column: linear.column === "none" ? "none" : "other",
      offset: 0,
    };
  const row = joined(indices.slice(0, axis), shape.slice(0, axis));
  return joined(
    [row, joined(indices.slice(axis), shape.slice(axis))],
    [Math.ceil(value.size / value.cols), value.ld],
  );
}

/** `text` as an offset that cannot overflow 32 bits. */
export function wide(value: Value, text: string): string {
  const span = isDense(value) ? value.size : (value.size / value.cols) * value.ld;
  return span < 2 ** 32 ? text : text.replace(/(\w+)( \* \d+u \+)/, "(u64)$1$2");
}

/** Whether `value` can be read and written `width` elements at a time along its last axis of `columns`. */
export function isAligned(value: Value, columns: number, width: number): boolean {
  const rows = isDense(value) ? [columns] : [columns, value.cols, value.ld];
  return rows.every((size) => size % width === 0) && value.offset % width === 0;
}

function loadFloat(
  kernel: KernelText,
  value: Value,
  { indices, shape }: Place,
  scope: Scope,
): string {
  const offset = offsetOf(value, indices, shape);
  const pointer = parameterOf(kernel, value);
  const last = indices.at(-1);
  const key = `${pointer}[${offset.text}]`;
  for (let at: Scope | undefined = scope; at; at = at.parent) {
    const known = at.known.get(key);
    if (known !== undefined) return known;
  }
  const canPack =
    kernel.width > 1 &&
    scope.kind === "element" &&
    offset.column === "unit" &&
    last?.column === "unit" &&
    last.offset % kernel.width === 0 &&
    isAligned(value, shape.at(-1)!, kernel.width);
  if (canPack) {
    const name = kernel.pack(value, wide(value, offset.text), scope);
    return define(kernel, { type: "float", text: `value(${name}.at[e])` }, scope, key);
  }
  const home = homeOf(scope, indices);
  const text = `value(${pointer}[${wide(value, offset.text)}])`;
  return define(kernel, { type: "float", text }, home, key);
}
