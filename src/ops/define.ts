/** @file How an op is written: one definition holds its shape rule, meaning, gradient, lowerings and tests. */
import { LorikeetError } from "../errors.ts";
import type { Attrs, Node, TypeOf } from "../ir/node.ts";
import type { OnnxEmitter, OnnxValue, OpCase, Rules, Value } from "../ir/rules.ts";
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
  const bind = (values: readonly unknown[], attrs: Attrs): never =>
    ({ ...bindInputs(spec.inputs, values), ...attrs }) as never;
  const { evaluate, decompose, gradient, onnx } = spec;
  const context = (node: Node, values: readonly unknown[]): never =>
    ({ ...(bind(values, node.attrs) as object), node }) as never;
  const rules: Rules = {
    name,
    inputs: spec.inputs,
    cases: spec.cases,
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
    const inputs = args.flat().filter((input) => input !== undefined) as Node[];
    const attrs = { ...(spec.defaults as Attrs | undefined), ...given };
    const { shape, dtype } = spec.infer(bind(inputs, attrs));
    return { op: rules, inputs, attrs, shape, dtype };
  };
  return Object.assign(call, { rules });
}

function isAttrs(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !("op" in value);
}

function inputName(input: string): string {
  return input.replace(/^\.\.\.|\?$/g, "");
}

function bindInputs<T>(
  names: readonly string[],
  values: readonly T[],
): Record<string, T | readonly T[] | undefined> {
  const bound: Record<string, T | readonly T[] | undefined> = {};
  for (const [i, name] of names.entries())
    bound[inputName(name)] = name.startsWith("...") ? values.slice(i) : values[i];
  return bound;
}

/** The error of an op whose inputs do not fit. */
export function shapeError(
  op: string,
  expected: string,
  got: Readonly<Record<string, Shape>>,
): LorikeetError {
  const shapes = Object.entries(got).map(([name, shape]) => `${name} ${formatShape(shape)}`);
  return new LorikeetError("shape", `Expected ${op} to get ${expected}, got ${shapes.join(", ")}`);
}
