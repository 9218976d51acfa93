/** @file A decoder as an ONNX model for batches of any size, with the inputs and outputs that Transformers.js expects. */
import { LorikeetError } from "../../errors.ts";
import { topological } from "../../ir/graph.ts";
import type { Node } from "../../ir/node.ts";
import { ONNX_TYPES } from "../../ir/onnx-types.ts";
import type { OnnxValue } from "../../ir/rules.ts";
import { attention } from "../../ops/attention.ts";
import { broadcastTo } from "../../ops/broadcast-to.ts";
import { input, isFrozen, leaves } from "../../ops/leaf.ts";
import { reshape } from "../../ops/reshape.ts";
import { rope } from "../../ops/rope.ts";
import { cse } from "../../passes/cse.ts";
import { expand } from "../../passes/expand.ts";
import { dropMarks, fold } from "../../passes/fold.ts";
import { convert } from "../../tensor/convert.ts";
import type { DType } from "../../tensor/dtype.ts";
import { sizeOf } from "../../tensor/shape.ts";
import { AttentionEmitter, INPUTS } from "./export-attention.ts";
import { hasLowering } from "./has-lowering.ts";
import { isOpen, type OpenGraph, openSizes, type OpenSize, type RunSize } from "./open-sizes.ts";
import type { OnnxModel, OnnxValueInfo } from "./proto.ts";
import { Emitter } from "./emitter.ts";

/** A decoder's graph for a batch without padding and without a cache, as the model families give it. */
export interface DecoderGraph {
  /** Final hidden states, (B·T, C). */
  readonly hidden: Node;
  /** Logits (R, V) of hidden rows (R, C). */
  readonly head: (hidden: Node) => Node;
  /** Keys and values by name `present.{layer}.key|value`, each (B, T, Hk, D). */
  readonly present: Readonly<Record<string, Node>>;
}

/** An ONNX model whose weights are written apart. */
export interface ExportedDecoder {
  readonly model: OnnxModel;
  /** Frozen weights, in the order of use. */
  readonly weights: readonly OnnxValueInfo[];
}

const OPSETS = { "": 18, "com.microsoft": 1 };
/** Leaf that stands for the hidden states whose logits are asked for. */
const KEPT = "kept_hidden";
/** All values of an axis, as an end of ONNX's Slice. */
const END = 2 ** 31 - 1;

/**
 * The decoder that `build` gives as an ONNX model for any batch: `input_ids`, `attention_mask`, `position_ids`,
 * `past_key_values.N.key|value` (B, Hk, P, D) and `num_logits_to_keep` (0: all) → `logits` and
 * `present.N.key|value` (B, Hk, P + T, D). It computes in f32 whatever `stored` is.
 * @throws LorikeetError `unsupported-onnx`
 */
export function exportDecoder(
  build: (size: RunSize) => DecoderGraph,
  stored: DType,
): ExportedDecoder {
  let names: readonly string[] = [];
  const graph = openSizes((size) => {
    const { hidden, head, present } = build(size);
    names = Object.keys(present);
    const roots = [hidden, head(input(KEPT, hidden.shape)), ...Object.values(present)];
    const lowered = expand(roots, (node) => node.op === attention.rules || isPortable(node));
    return cse(fold(dropMarks(lowered)));
  });
  return new DecoderExport(graph, names, stored).finish();
}

/** Whether `node` has a lowering that holds for every size and on every engine of ONNX Runtime. */
function isPortable(node: Node): boolean {
  return node.op !== rope.rules && hasLowering(node, "portable");
}

class DecoderExport {
  private readonly emitter = new Emitter("portable");
  private readonly attention: AttentionEmitter;
  private readonly values = new Map<Node, OnnxValue>();
  private readonly weights = new Map<string, OnnxValueInfo>();
  private readonly graph: OpenGraph;
  private readonly stored: DType;

  constructor(graph: OpenGraph, names: readonly string[], stored: DType) {
    this.graph = graph;
    this.stored = stored;
    const [, , ...fresh] = graph.roots;
    this.attention = new AttentionEmitter(
      this.emitter,
      new Map(fresh.map((node, i) => [node, names[i]!])),
    );
  }

  finish(): ExportedDecoder {
    const [hidden, logits] = this.graph.roots as [Node, Node];
    for (const node of topological(this.graph.roots.filter((root) => root !== logits)))
      this.add(node);
    const kept = this.keptRows(hidden);
    for (const node of topological([logits])) {
      if (node.name === KEPT) this.values.set(node, kept);
      else if (!this.values.has(node)) this.add(node);
    }
    const width = logits.shape.at(-1)!;
    const perRow = this.emitter.node("Concat", [this.batch(), this.emitter.ints([-1, width])], { axis: 0 }); // prettier-ignore
    const { inputs, outputs } = this.attention;
    const named = this.named("Reshape", [this.values.get(logits)!, perRow], "logits");
    const model: OnnxModel = {
      name: "lorikeet",
      opsets: OPSETS,
      nodes: [...this.emitter.nodes, named],
      initializers: this.emitter.initializers,
      inputs: [...INPUTS, ...inputs],
      outputs: [
        { name: "logits", dtype: "f32", shape: ["batch_size", "num_logits", width] },
        ...outputs,
      ],
    };
    return { model, weights: [...this.weights.values()] };
  }

  private add(node: Node): void {
    const inputs = node.inputs.map((source) => this.values.get(source)!);
    this.emitter.scope = node.op.name;
    this.values.set(node, this.lower(node, inputs));
  }

  private lower(node: Node, inputs: readonly OnnxValue[]): OnnxValue {
    if (node.inputs.length === 0) return this.leaf(node);
    if (node.op === attention.rules) return this.attention.emit(node, inputs);
    if (node.op === reshape.rules)
      return this.emitter.node("Reshape", [inputs[0]!, this.shapeValue(this.graph.sizesOf(node))]);
    if (node.op === broadcastTo.rules && this.graph.sizesOf(node).some(isOpen))
      throw unsupported("values that are repeated for each token");
    const value = node.op.onnx?.(this.emitter, node, inputs);
    if (value === undefined) throw unsupported(node.op.name);
    return value;
  }

  private leaf(node: Node): OnnxValue {
    if (node.op === leaves.input) return node.name!;
    if (node.value) return this.emitter.constant(node.value);
    if (isFrozen(node)) return this.weight(node);
    if (node.op !== leaves.constant || this.graph.sizesOf(node).some(isOpen))
      throw unsupported(`${node.op.name} ${node.name ?? ""}`);
    const data = new Float64Array(sizeOf(node.shape)).fill(Number(node.attrs["value"]));
    return this.emitter.constant(convert({ dtype: "f64", shape: node.shape, data }, node.dtype));
  }

  private weight({ name, shape }: Node): OnnxValue {
    this.weights.set(name!, { name: name!, dtype: this.stored, shape });
    return this.stored === "f32" ? name! : this.emitter.node("Cast", [name!], { to: ONNX_TYPES.f32 }); // prettier-ignore
  }

  /** Target of a Reshape: every open size but the last is computed, the last follows from the number of elements. */
  private shapeValue(sizes: readonly OpenSize[]): OnnxValue {
    const last = sizes.findLastIndex(isOpen);
    const computed = sizes.slice(0, Math.max(0, last)).filter(isOpen);
    if (computed.length === 0)
      return this.emitter.ints(sizes.map(({ factor }, axis) => (axis === last ? -1 : factor)));
    const isBatchFirst = computed.length === 1 && isOpen(sizes[0]!) && !sizes[0]!.byLength && sizes[0]!.factor === 1; // prettier-ignore
    if (!isBatchFirst) throw unsupported("a shape with several sizes that follow the batch");
    const rest = sizes.slice(1).map(({ factor }, i) => (i + 1 === last ? -1 : factor));
    const key = `shape ${rest.join()}`;
    const known = this.emitter.recall(key);
    if (known !== undefined) return known;
    const value = this.emitter.node("Concat", [this.batch(), this.emitter.ints(rest)], { axis: 0 });
    this.emitter.remember(key, value);
    return value;
  }

  /** Number of rows, int64 [1]. */
  private batch(): OnnxValue {
    const known = this.emitter.recall("batch");
    if (known !== undefined) return known;
    const value = this.emitter.node("Shape", ["input_ids"], { start: 0, end: 1 });
    this.emitter.remember("batch", value);
    return value;
  }

  /** The last `num_logits_to_keep` hidden states of each row as (R, C). */
  private keptRows(hidden: Node): OnnxValue {
    const { emitter } = this;
    const width = hidden.shape[1]!;
    const byRow = emitter.node("Concat", [this.batch(), emitter.ints([-1, width])], { axis: 0 });
    const states = emitter.node("Reshape", [this.values.get(hidden)!, byRow]);
    const start = emitter.node("Reshape", [emitter.node("Neg", ["num_logits_to_keep"]), emitter.ints([1])]); // prettier-ignore
    const kept = emitter.node("Slice", [states, start, emitter.ints([END]), emitter.ints([1])]);
    return emitter.node("Reshape", [kept, emitter.ints([-1, width])]);
  }

  private named(opType: string, inputs: readonly OnnxValue[], name: string): OnnxModel["nodes"][number] {
    return { opType, domain: "", name: `%${name}`, inputs, outputs: [name], attributes: {} };
  } // prettier-ignore
}

function unsupported(what: string): LorikeetError {
  return new LorikeetError(
    "unsupported-onnx",
    `Expected a model of ops that ONNX has for batches of any size, got ${what}`,
    { hint: "Write it as safetensors or GGUF." },
  );
}
