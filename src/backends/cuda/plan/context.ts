/** @file What building a plan shares: where values are, and operands of matrix products in the type that they need. */
import { LorikeetError } from "../../../errors.ts";
import type { Node } from "../../../ir/node.ts";
import { isTrainable, leaves } from "../../../ops/leaf.ts";
import { toFloat32 } from "../../../tensor/convert.ts";
import type { CacheStore } from "../cache-store.ts";
import type { Device } from "../device.ts";
import type { GemmPlanner } from "../gemm.ts";
import type { TrainableState } from "../state.ts";
import type { WeightStore } from "../weights.ts";
import type { GeneratedKernel, Store } from "./kernel-draft.ts";
import { type PlanGraph, stripReshape } from "./graph.ts";
import type { Sum } from "./sums.ts";
import { newValue, type Storage, type Unit, type Value } from "./value.ts";

/** What outlives a program. */
export interface EngineParts {
  readonly device: Device;
  readonly state: TrainableState;
  readonly weights: WeightStore;
  readonly gemms: GemmPlanner;
  readonly caches: CacheStore;
  /** Address of `SKINNY.bytes` of memory, zeros at first, for products with a short side. */
  readonly skinny: number;
}

/** A plan under construction. */
export interface PlanContext extends EngineParts {
  readonly plan: PlanGraph;
  readonly values: Map<Node, Value>;
  readonly units: { readonly at: number; readonly unit: Unit }[];
  /** Generated kernels by their text; launches are bound once all are compiled together. */
  readonly kernels: GeneratedKernels;
  readonly sums: ReadonlyMap<Node, Sum>;
  /** Place of each node in the graph. */
  readonly order: ReadonlyMap<Node, number>;
  /** Values of `input` leaves by name. */
  readonly inputs: Map<string, Value>;
  /** Converted copies of values, by storage and place in the graph. */
  readonly copies: Map<string, Value>;
  /** Memory that may be overwritten while algorithms are timed, and how much of it they need. */
  readonly scratch: { address: number; bytes: number };
  /** Values to upload once: constants of the graph. */
  readonly literals: { readonly value: Value; readonly data: Float32Array | Int32Array }[];
}

export interface GeneratedKernels {
  /** A unit that launches `kernel`. */
  unit(name: string, kernel: GeneratedKernel, stores: readonly Store[]): Unit;
}

/** Where `node` is stored, or undefined when it is computed where it is used. Leaves get their place here. */
export function valueOf(context: PlanContext, node: Node): Value | undefined {
  const known = context.values.get(node);
  if (known) return known;
  const value = leafValue(context, node);
  if (value) context.values.set(node, value);
  return value;
}

function leafValue(
  { plan, state, weights, inputs, literals, caches }: PlanContext,
  node: Node,
): Value | undefined {
  const storage = plan.storage.get(node);
  if (node.op === leaves.parameter)
    return isTrainable(node)
      ? state.value(node.name!, "")
      : weights.place(node.name!, node.shape, storage!);
  if (node.op === leaves.input && plan.graph.caches && node.name! in plan.graph.caches)
    return caches.view(node.name!, node.shape, plan.precision);
  if (node.op === leaves.input) {
    const known = inputs.get(node.name!);
    if (known) return known;
    const value = newValue(node.shape, storage === "i32" ? "i32" : "f32");
    value.region = { ...value.region, isPlanned: false };
    inputs.set(node.name!, value);
    return value;
  }
  if (node.op === leaves.literal) {
    const value = newValue(node.shape, storage === "i32" ? "i32" : "f32");
    value.region = { ...value.region, isPlanned: false };
    const data = toFloat32(node.value!);
    literals.push({ value, data: value.storage === "i32" ? Int32Array.from(data) : data });
    return value;
  }
  return undefined;
}

/** The value of a node that must be stored, or of what it is a reshape of. */
export function storedValue(context: PlanContext, node: Node): Value {
  const value = valueOf(context, stripReshape(node));
  if (!value)
    throw new LorikeetError(
      "cuda-plan",
      `Expected ${node.op.name} [${node.shape.join(", ")}] to be stored; it is not`,
    );
  return value;
}

/** Adds a unit that stands at the place of `node` in the graph. */
export function addUnit(context: PlanContext, node: Node, unit: Unit): void {
  const isLate = node.phase === "recompute";
  context.units.push({
    at: context.order.get(node) ?? Number.MAX_SAFE_INTEGER,
    unit: isLate ? { ...unit, isLate } : unit,
  });
}

/** Storage that a product of these operands computes in. */
export function productStorage({ plan }: PlanContext, a: Node, b: Node): Storage {
  const isHalf = [a, b].some((node) => plan.storage.get(node) === plan.precision);
  return isHalf ? plan.precision : "f32";
}
