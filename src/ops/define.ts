/** @file How an op is written: one definition holds its shape rule, meaning, gradient, lowerings and tests. */
import { LorikeetError } from "../errors.ts";
import type { Attrs, Node, TypeOf } from "../ir/node.ts";
import type { OnnxEmitter, OnnxValue, OpCase, Rules, Value } from "../ir/rules.ts";
import { isFloat } from "../tensor/dtype.ts";
import { formatShape, type Shape } from "../tensor/shape.ts";

type NameOf<I extends string> = I extends `...${infer N}` ? N : I extends `${infer N}?` ? N : I;
type FieldOf<I extends string, T> = I extends `...${string}`
  ? readonly T[]
  : I extends `${string}?`
    ? T | undefined
    : T;
/** `["x", "bias?"]` → `{ x: T; bias: T | undefined }`. */
export type Named<I extends readonly string[], T> = {
  readonly [K in I[number] as NameOf<K>]: FieldOf<K, T>;
};
type Positions<I extends readonly string[]> = I extends readonly [
  infer H extends string,
  ...infer R extends readonly string[],
]
  ? H extends `${string}?`
    ? [node?: Node | undefined, ...rest: Positions<R>]
    : [node: FieldOf<H, Node>, ...rest: Positions<R>]
  : [];
type NoAttrs = object;

/** A function that adds a node; `rules` is what passes and engines read. `A`: required attributes, `D`: with defaults. */
export interface Op<
  I extends readonly string[],
  A extends object = NoAttrs,
  D extends object = NoAttrs,
> {
  (
    ...args: [
      ...Positions<I>,
      ...(keyof A extends never ? [attrs?: Partial<D>] : [attrs: A & Partial<D>]),
    ]
  ): Node;
  readonly rules: Rules;
}

type Context<I extends readonly string[], A, D, T> = Named<I, T> & A & D & { readonly node: Node };

/** What the author of an op writes. */
export interface OpSpec<I extends readonly string[], A extends object, D extends object> {
  readonly inputs: I;
  readonly defaults?: D;
  readonly infer: (context: Named<I, Node> & A & D) => TypeOf;
  readonly evaluate?: (context: Context<I, A, D, Value>) => Float64Array;
  readonly decompose?: (context: Context<I, A, D, Node>) => Node;
  readonly gradient?: (context: Context<I, A, D, Node> & { readonly dy: Node }) => {
    readonly [K in I[number] as NameOf<K>]?: K extends `...${string}`
      ? readonly (() => Node)[]
      : (() => Node) | undefined;
  };
  readonly onnx?: (
    emit: OnnxEmitter,
    context: Context<I, A, D, OnnxValue>,
  ) => OnnxValue | undefined;
  readonly cases: readonly OpCase[];
}

/** Makes an op from its definition. Attributes are given after the inputs; those with defaults may be left out. */
export function defineOp<
  const I extends readonly string[],
  A extends object = NoAttrs,
  D extends object = NoAttrs,
>(name: string, spec: OpSpec<I, A, D>): Op<I, A, D> {
  const names = spec.inputs.map(inputName);
  const isList = spec.inputs.map((input) => input.startsWith("..."));
  const bindInputs = (values: readonly unknown[]): Record<string, unknown> => {
    const bound: Record<string, unknown> = {};
    for (let i = 0; i < names.length; i++)
      bound[names[i]!] = isList[i] ? values.slice(i) : values[i];
    return bound;
  };
  const bind = (values: readonly unknown[], attrs: Attrs): never =>
    Object.assign(bindInputs(values), attrs) as never;
  const { evaluate, decompose, gradient, onnx } = spec;
  const context = (node: Node, values: readonly unknown[]): never =>
    Object.assign(bindInputs(values), node.attrs, { node }) as never;
  const infer = (inputs: readonly Node[], attrs: Attrs): TypeOf => {
    checkCount(name, spec.inputs, inputs);
    return spec.infer(bind(inputs, attrs));
  };
  const rules: Rules = {
    name,
    inputs: spec.inputs,
    cases: spec.cases,
    infer: ({ inputs, attrs }) => infer(inputs, attrs),
    ...(evaluate && { evaluate: (node, inputs) => evaluate(context(node, inputs)) }),
    ...(decompose && { decompose: (node) => decompose(context(node, node.inputs)) }),
    ...(gradient && {
      gradient: (node, dy) =>
        spec.inputs.flatMap((input) => {
          const rule = (
            gradient({ ...(context(node, node.inputs) as object), dy } as never) as Record<
              string,
              unknown
            >
          )[inputName(input)];
          return (input.startsWith("...") ? (rule ?? []) : [rule]) as ((() => Node) | undefined)[];
        }),
    }),
    ...(onnx && { onnx: (emit, node, inputs) => onnx(emit, context(node, inputs)) }),
  };
  const call = (...args: unknown[]): Node => {
    const last = args.at(-1);
    const given = isAttrs(last) ? (args.pop() as Attrs) : {};
    const all = args.flat();
    const inputs = all.slice(0, all.findLastIndex((input) => input !== undefined) + 1) as Node[];
    const attrs = { ...(spec.defaults as Attrs | undefined), ...given };
    const { shape, dtype } = infer(inputs, attrs);
    return { op: rules, inputs, attrs, shape, dtype };
  };
  return Object.assign(call, { rules });
}

function isAttrs(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !("op" in value);
}

/** Checks that `inputs` are as many as `names` asks for, without a gap: only trailing optional ones may be absent. */
function checkCount(op: string, names: readonly string[], inputs: readonly unknown[]): void {
  const most = names.some((name) => name.startsWith("...")) ? Infinity : names.length;
  const least = names.filter((name) => !name.endsWith("?")).length;
  const count = inputs.includes(undefined) ? inputs.indexOf(undefined) : inputs.length;
  if (count < least || count > most || count < inputs.length)
    throw new LorikeetError(
      "invalid-graph",
      `Expected ${op} to get ${names.join(", ")}, got ${count} inputs${count < inputs.length ? " and a gap" : ""}`,
    );
}

function inputName(input: string): string {
  return input.replace(/^\.\.\.|\?$/g, "");
}

/** Checks that the inputs of `op` named here hold numbers of one type. */
export function checkDtypes(op: string, inputs: Readonly<Record<string, Node>>): void {
  const nodes = Object.entries(inputs);
  if (new Set(nodes.map(([, { dtype }]) => dtype)).size > 1)
    throw new LorikeetError(
      "dtype",
      `Expected ${op} to get values of one dtype, got ${nodes.map(([name, { dtype }]) => `${name} ${dtype}`).join(", ")}`,
      { hint: "Convert one of them by `cast`." },
    );
}

/** Checks that `ids` of `op` are whole numbers. */
export function checkIds(op: string, { dtype }: Node): void {
  if (isFloat(dtype))
    throw new LorikeetError("dtype", `Expected ${op} to get whole numbers as ids, got ${dtype}`);
}

/** The error of an op whose inputs do not fit. */
export function shapeError(
  op: string,
  expected: string,
  got: Readonly<Record<string, Shape | Node>>,
): LorikeetError {
  const shapes = Object.entries(got).map(
    ([name, value]) => `${name} ${formatShape("shape" in value ? value.shape : value)}`,
  );
  return new LorikeetError("shape", `Expected ${op} to get ${expected}, got ${shapes.join(", ")}`);
}
