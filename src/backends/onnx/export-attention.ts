/** @file Attention over a cache of any length, in ONNX's own ops. */
import { LorikeetError } from "../../errors.ts";
import type { Node } from "../../ir/node.ts";
import type { OnnxValue } from "../../ir/rules.ts";
import { tensor } from "../../tensor/tensor.ts";
import type { Emitter } from "./emitter.ts";
import type { OnnxDim, OnnxValueInfo } from "./proto.ts";

/** Inputs of every exported decoder besides its cache. */
export const INPUTS: readonly OnnxValueInfo<OnnxDim>[] = [
  { name: "input_ids", dtype: "i64", shape: ["batch_size", "sequence_length"] },
  { name: "attention_mask", dtype: "i64", shape: ["batch_size", "total_sequence_length"] },
  { name: "position_ids", dtype: "i64", shape: ["batch_size", "sequence_length"] },
  { name: "num_logits_to_keep", dtype: "i64", shape: [] },
];

/** Score of a key that must not be seen. */
const HIDDEN = -1e30;
const SWAP = { perm: [0, 2, 1, 3] };

/** Emits attention layers that share their masks; keys and values before this run come from the inputs `past_…`. */
export class AttentionEmitter {
  /** What the layers read and write besides: past and present keys and values, (B, Hk, S, D). */
  readonly inputs: OnnxValueInfo<OnnxDim>[] = [];
  readonly outputs: OnnxValueInfo<OnnxDim>[] = [];
  private readonly emitter: Emitter;
  private readonly present: ReadonlyMap<Node, string>;
  private readonly masks = new Map<number, OnnxValue>();

  /** @param present names of new keys and values */
  constructor(emitter: Emitter, present: ReadonlyMap<Node, string>) {
    this.emitter = emitter;
    this.present = present;
  }

  /** softmax(scale · q·kᵀ + mask) · v of one layer: (B, T, H, D). */
  emit(node: Node, values: readonly OnnxValue[]): OnnxValue {
    const { emitter } = this;
    const [q, k, v, segments] = node.inputs;
    const { scale, causal, window, softcap } = node.attrs as unknown as Attrs;
    if (segments || !causal) throw notCausal();
    const [heads, D] = q!.shape.slice(2) as [number, number];
    const keyHeads = k!.shape[2]!;
    const rows = emitter.node("Mul", [values[0]!, emitter.scalar(scale)]);
    const grouped = this.reshaped(emitter.node("Transpose", [rows], SWAP), [0, keyHeads, -1, D], heads !== keyHeads); // prettier-ignore
    const keys = emitter.node("Transpose", [this.extended(k!, values[1]!)], { perm: [0, 1, 3, 2] });
    const raw = emitter.node("MatMul", [grouped, keys]);
    let scores = this.reshaped(raw, [0, heads, -1, 0], heads !== keyHeads);
    if (softcap > 0) {
      const small = emitter.node("Mul", [scores, emitter.scalar(1 / softcap)]);
      scores = emitter.node("Mul", [emitter.node("Tanh", [small]), emitter.scalar(softcap)]);
    }
    const masked = emitter.node("Add", [scores, this.mask(window)]);
    const weights = emitter.node("Softmax", [masked], { axis: -1 });
    const byKey = this.reshaped(weights, [0, keyHeads, -1, 0], heads !== keyHeads);
    const sums = emitter.node("MatMul", [byKey, this.extended(v!, values[2]!)]);
    const byHead = this.reshaped(sums, [0, heads, -1, v!.shape[3]!], heads !== keyHeads);
    return emitter.node("Transpose", [byHead], SWAP);
  }

  private reshaped(value: OnnxValue, shape: readonly number[], isNeeded: boolean): OnnxValue {
    return isNeeded ? this.emitter.node("Reshape", [value, this.emitter.ints(shape)]) : value;
  }

  /** The cache with the new rows `fresh` (B, T, Hk, D) behind it: (B, Hk, P + T, D). */
  private extended(node: Node, fresh: OnnxValue): OnnxValue {
    const name = this.present.get(node);
    if (name === undefined) throw notCausal();
    const past = name.replace("present.", "past_key_values.");
    const [Hk, D] = node.shape.slice(2) as [number, number];
    this.inputs.push({ name: past, dtype: "f32", shape: ["batch_size", Hk, "past_sequence_length", D] }); // prettier-ignore
    this.outputs.push({
      name,
      dtype: "f32",
      shape: ["batch_size", Hk, "total_sequence_length", D],
    });
    const swapped = this.emitter.node("Transpose", [fresh], SWAP);
    this.emitter.nodes.push({
      opType: "Concat",
      domain: "",
      name: `%${name}`,
      inputs: [past, swapped],
      outputs: [name],
      attributes: { axis: { kind: "int", value: 2 } },
    });
    return name;
  }

  /** What is added to scores, (B, 1, T, S): `HIDDEN` for padding, later keys, and keys outside of `window`. */
  private mask(window: number): OnnxValue {
    const known = this.masks.get(window);
    if (known !== undefined) return known;
    const { emitter } = this;
    const whole = (value: number): OnnxValue =>
      emitter.constant(tensor("i64", [], BigInt64Array.of(BigInt(value))));
    const sizeOf = (value: OnnxValue): OnnxValue =>
      emitter.node("Squeeze", [emitter.node("Shape", [value], { start: 1, end: 2 }), emitter.ints([0])]); // prettier-ignore
    const [total, length] = [sizeOf("attention_mask"), sizeOf("input_ids")];
    const range = (start: OnnxValue): OnnxValue => emitter.node("Range", [start, total, whole(1)]);
    const keys = emitter.node("Unsqueeze", [range(whole(0)), emitter.ints([0])]);
    const queries = emitter.node("Unsqueeze", [range(emitter.node("Sub", [total, length])), emitter.ints([1])]); // prettier-ignore
    const distance = emitter.node("Sub", [queries, keys]);
    let visible = emitter.node("GreaterOrEqual", [distance, whole(0)]);
    if (window > 0) visible = emitter.node("And", [visible, emitter.node("Less", [distance, whole(window)])]); // prettier-ignore
    const isToken = emitter.node("Cast", ["attention_mask"], { to: BOOL });
    const token = emitter.node("Unsqueeze", [isToken, emitter.ints([1, 2])]);
    const seen = emitter.node("And", [visible, token]);
    const mask = emitter.node("Where", [seen, emitter.scalar(0), emitter.scalar(HIDDEN)]);
    this.masks.set(window, mask);
    return mask;
  }
}

const BOOL = 9;

interface Attrs {
  readonly scale: number;
  readonly causal: boolean;
  readonly window: number;
  readonly softcap: number;
}

function notCausal(): LorikeetError {
  return new LorikeetError(
    "unsupported-onnx",
    "Expected a decoder with causal attention over its own keys, got another kind of attention",
    { hint: "Write it as safetensors or GGUF." },
  );
}
