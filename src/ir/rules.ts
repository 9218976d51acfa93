import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Attrs, Node, TypeOf } from "./node.ts";

/** A value in the reference interpreter; integers and booleans are whole float64 numbers. */
export interface Value {
  readonly shape: Shape;
  readonly data: Float64Array;
}

/** A value in an ONNX graph, by name. */
export type OnnxValue = string;

/** Which ops an execution provider has and runs well; `portable`: those of a file for any engine of ONNX Runtime. */
export type OnnxProfile = "cpu" | "webgpu" | "portable";

/** Attributes of an ONNX node; `emitter.ts` knows which numbers are floats. */
export type OnnxAttrs = Readonly<Record<string, number | string | readonly number[]>>;

/** What an op's ONNX lowering may do. */
export interface OnnxEmitter {
  readonly profile: OnnxProfile;
  /** Adds a node with one result and returns it. Contrib ops are spelled `com.microsoft.Name`. */
  node(opType: string, inputs: readonly OnnxValue[], attrs?: OnnxAttrs): OnnxValue;
  /** Adds a node with `count` results. */
  results(
    count: number,
    opType: string,
    inputs: readonly OnnxValue[],
    attrs?: OnnxAttrs,
  ): OnnxValue[];
  /** A constant in the graph. */
  constant(value: Tensor): OnnxValue;
  /** Shape-like constant: int64 [n]. */
  ints(values: readonly number[]): OnnxValue;
  /** A float scalar in the program's float type. */
  scalar(value: number): OnnxValue;
  /** Keeps a by-product of a lowering for later ones that need the same, under a key that names its inputs. */
  remember(key: string, value: OnnxValue): void;
  /** What was remembered under `key`. */
  recall(key: string): OnnxValue | undefined;
}

/** A pair of program-specific lowering arguments: named values of the inputs. */
export type Positional<T> = readonly T[];

/** What the passes and engines know of an op. Made by `defineOp`; inputs are positional here. */
export interface Rules {
  readonly name: string;
  /** Input names; `x?` is optional (only trailing ones may be absent), `...xs` takes all the rest. */
  readonly inputs: readonly string[];
  /** Shape and dtype that the node must have; throws when its inputs do not fit. Absent on leaves. */
  readonly infer?: (node: Node) => TypeOf;
  /** Set on primitives: result values from input values, a plain float64 loop. */
  readonly evaluate?: (node: Node, inputs: Positional<Value>) => Float64Array;
  /** The op in terms of simpler ops; absent on primitives. */
  readonly decompose?: (node: Node) => Node;
  /** For each input a function that builds d(loss)/d(input) from dy = d(loss)/d(node), or undefined. */
  readonly gradient?: (node: Node, dy: Node) => readonly ((() => Node) | undefined)[];
  /** ONNX lowering; returns undefined when the profile has none, and the op is decomposed. */
  readonly onnx?: (
    emit: OnnxEmitter,
    node: Node,
    inputs: Positional<OnnxValue>,
  ) => OnnxValue | undefined;
  readonly cases: readonly OpCase[];
}

/** One test of an op, run by the registry walk on every engine. */
export interface OpCase {
  /** Shape of each input, by name (a list for `...xs`). */
  readonly shapes: Readonly<Record<string, Shape | readonly Shape[]>>;
  readonly attrs?: Attrs;
  /** Inputs that are whole numbers in [0, n): i64 ids. */
  readonly ids?: Readonly<Record<string, number>>;
  /** Interval from which a float input is drawn; default [-1.5, 1.5]. */
  readonly range?: Readonly<Record<string, readonly [number, number]>>;
  /** Known values: row-major inputs by name and the expected result. */
  readonly known?: {
    readonly inputs: Readonly<Record<string, readonly number[]>>;
    readonly output: readonly number[];
  };
  /** Float inputs that are never differentiated (angles, masks). */
  readonly fixed?: readonly string[];
  /** Why no gradient is checked (step functions, integer results). */
  readonly noGradient?: string;
}
