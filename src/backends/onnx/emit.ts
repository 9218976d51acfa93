import { LorikeetError } from "../../errors.ts";
import { type Graph, rootsOf, topological } from "../../ir/graph.ts";
import type { Node } from "../../ir/node.ts";
import type { OnnxProfile, OnnxValue } from "../../ir/rules.ts";
import { isFrozen, isTrainable, leaves } from "../../ops/leaf.ts";
import { convert } from "../../tensor/convert.ts";
import { formatShape } from "../../tensor/shape.ts";
import { Emitter } from "./emitter.ts";
import { leavesLast } from "./order.ts";
import { encodeModel, type OnnxExternalData, type OnnxValueInfo } from "./proto.ts";
import type { ProgramSpec } from "./protocol.ts";
import { joinViews } from "./views.ts";

const OPSETS = { "": 21, "com.microsoft": 1 };

/** Where the bytes of frozen weights are, by name. */
export type WeightLocations = ReadonlyMap<string, Uint8Array | OnnxExternalData>;

/**
 * Lowers `graph` to an ONNX model: frozen weights are constants outside of it, trainable ones and inputs are its
 * inputs, results and gradients its outputs.
 * @throws LorikeetError `unsupported-op` when an op has no lowering, `missing-weight` when a weight has no location
 */
export function emitGraph(
  graph: Graph,
  profile: OnnxProfile,
  weights: WeightLocations,
): ProgramSpec {
  const roots = rootsOf(graph);
  const order = topological(roots);
  const lowering = new Lowering(new Emitter(profile), weights, nodesOfWeightsAlone(order));
  for (const node of order) lowering.add(node);
  const taken = new Set<OnnxValue>();
  const outputs = lowering.results(graph.outputs, taken);
  const gradients = lowering.results(graph.gradients, taken);
  const fresh = graph.caches ?? {};
  const caches = lowering.results(fresh, taken);
  const { emitter, inputs } = lowering;
  const values = [outputs, gradients, caches].flatMap((results) => Object.values(results));
  const late = new Set(Object.keys(gradients).length > 0 ? Object.values(outputs) : []);
  const model = encodeModel({
    name: "lorikeet",
    opsets: OPSETS,
    nodes: leavesLast(joinViews(emitter, new Set(values)), late),
    initializers: emitter.initializers,
    inputs,
    outputs: roots.map(({ dtype, shape }, i) => ({ name: values[i]!, dtype, shape })),
  });
  const trainable = order.filter(isTrainable).map(({ name, shape }) => [name!, shape] as const);
  const read = inputs.filter(({ name }) => name in fresh);
  const cacheShapes = Object.fromEntries(read.map(({ name, shape }) => [name, shape]));
  const parameters = Object.fromEntries(trainable);
  return { model, parameters, outputs, gradients, caches, cacheShapes };
}

/**
 * Nodes that depend on frozen weights and constants alone (casts, dequantization). They are emitted again at each
 * use, so that the wider copy of a weight lives no longer than the product that reads it.
 */
function nodesOfWeightsAlone(order: readonly Node[]): ReadonlySet<Node> {
  const fixed = new Set<Node>();
  const alone = new Set<Node>();
  for (const node of order) {
    const isConstant = node.op === leaves.constant || node.op === leaves.literal;
    if (isFrozen(node) || isConstant) fixed.add(node);
    if (node.inputs.length === 0 || !node.inputs.every((input) => fixed.has(input))) continue;
    fixed.add(node);
    if (node.inputs.some((input) => isFrozen(input) || alone.has(input))) alone.add(node);
  }
  return alone;
}

class Lowering {
  readonly emitter: Emitter;
  readonly inputs: OnnxValueInfo[] = [];
  private readonly weights: WeightLocations;
  private readonly alone: ReadonlySet<Node>;
  private readonly values = new Map<Node, OnnxValue>();
  private readonly names = new Map<string, OnnxValue>();

  constructor(emitter: Emitter, weights: WeightLocations, alone: ReadonlySet<Node>) {
    this.emitter = emitter;
    this.weights = weights;
    this.alone = alone;
  }

  /** Emits `node`, whose inputs were added before. */
  add(node: Node): void {
    if (this.alone.has(node)) return;
    if (node.inputs.length === 0) {
      this.values.set(node, this.leaf(node));
      return;
    }
    const inputs = node.inputs.map((input) => this.valueFor(input));
    const value = this.lower(node, inputs);
    this.emitter.shapes.set(value, node.shape);
    this.values.set(node, value);
  }

  /** ONNX names of `results`, each one distinct from graph inputs, constants and what is `taken`. */
  results(
    results: Readonly<Record<string, Node>>,
    taken: Set<OnnxValue>,
  ): Record<string, OnnxValue> {
    const named = Object.entries(results).map(([name, node]) => {
      let value = this.valueFor(node);
      if (node.inputs.length === 0 || taken.has(value))
        value = this.emitter.node("Identity", [value]);
      taken.add(value);
      return [name, value] as const;
    });
    return Object.fromEntries(named);
  }

  private valueFor(node: Node): OnnxValue {
    if (!this.alone.has(node)) return this.values.get(node)!;
    const own = new Map<Node, OnnxValue>();
    for (const inner of topological([node])) {
      const value = this.alone.has(inner)
        ? this.lower(
            inner,
            inner.inputs.map((input) => own.get(input)!),
          )
        : this.values.get(inner)!;
      own.set(inner, value);
    }
    return own.get(node)!;
  }

  private lower(node: Node, inputs: readonly OnnxValue[]): OnnxValue {
    this.emitter.scope = node.phase ? `${node.op.name}.again` : node.op.name;
    const value = node.op.onnx?.(this.emitter, node, inputs);
    if (value === undefined)
      throw new LorikeetError(
        "unsupported-op",
        `Expected ops with an ONNX lowering for ${this.emitter.profile}, got ${node.op.name}`,
        {
          hint: "decompose the graph first (passes/expand)",
        },
      );
    return value;
  }

  private leaf(node: Node): OnnxValue {
    const { name, dtype, shape } = node;
    if (node.value) return this.emitter.constant(node.value);
    if (name === undefined) return this.filled(node);
    const known = this.names.get(name);
    if (known !== undefined) return known;
    this.names.set(name, name);
    if (!isFrozen(node)) this.inputs.push({ name, dtype, shape });
    else {
      const data = this.weights.get(name);
      if (!data)
        throw new LorikeetError(
          "missing-weight",
          `Expected a frozen weight "${name}" ${formatShape(shape)}, got none`,
        );
      this.emitter.weight(name, node, data);
    }
    return name;
  }

  /** A constant that is the same everywhere; only its scalar is stored. */
  private filled({ attrs, dtype, shape }: Node): OnnxValue {
    this.emitter.scope = "constant";
    const value = Number(attrs["value"]);
    const scalar = this.emitter.constant(
      convert({ dtype: "f64", shape: [], data: Float64Array.of(value) }, dtype),
    );
    return shape.length === 0
      ? scalar
      : this.emitter.node("Expand", [scalar, this.emitter.ints(shape)]);
  }
}
