import type { OnnxAttrs, OnnxEmitter, OnnxProfile, OnnxValue } from "../../ir/rules.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { OnnxAttribute, OnnxExternalData, OnnxInitializer, OnnxNode } from "./proto.ts";

/** Attributes that ONNX declares as floats; all other numbers are whole. */
const FLOAT_ATTRIBUTES: ReadonlySet<string> = new Set([
  "alpha",
  "beta",
  "epsilon",
  "scale",
  "softcap",
]);
const CONTRIB = "com.microsoft";

/** Collects the nodes and constants of one ONNX graph; equal constants are stored once. */
export class Emitter implements OnnxEmitter {
  readonly profile: OnnxProfile;
  readonly nodes: OnnxNode[] = [];
  readonly initializers: OnnxInitializer[] = [];
  /** Begins the names of new nodes, so that profiles tell which op they came from. */
  scope = "node";
  /** Shapes of values, as far as they are known. */
  readonly shapes: Map<OnnxValue, Shape> = new Map();
  /** What constants made by `ints` hold. */
  readonly lists: Map<OnnxValue, readonly number[]> = new Map();
  private readonly constants = new Map<string, OnnxValue>();
  /** Digests of constants, which many layers share. */
  private readonly digests = new Map<ArrayBufferView, string>();
  private readonly remembered = new Map<string, OnnxValue>();

  constructor(profile: OnnxProfile) {
    this.profile = profile;
  }

  node(opType: string, inputs: readonly OnnxValue[], attrs: OnnxAttrs = {}): OnnxValue {
    return this.results(1, opType, inputs, attrs)[0]!;
  }

  results(
    count: number,
    opType: string,
    inputs: readonly OnnxValue[],
    attrs: OnnxAttrs = {},
  ): OnnxValue[] {
    const isContrib = opType.startsWith(`${CONTRIB}.`);
    const name = `%${this.scope}.${this.nodes.length}`;
    const outputs = Array.from({ length: count }, (_, i) => (i === 0 ? name : `${name}:${i}`));
    this.nodes.push({
      opType: isContrib ? opType.slice(CONTRIB.length + 1) : opType,
      domain: isContrib ? CONTRIB : "",
      name,
      inputs,
      outputs,
      attributes: Object.fromEntries(
        Object.entries(attrs).map(([key, value]) => [key, attributeOf(key, value)]),
      ),
    });
    return outputs;
  }

  constant(value: Tensor): OnnxValue {
    const bytes = new Uint8Array(value.data.buffer, value.data.byteOffset, value.data.byteLength);
    const digest = this.digests.get(value.data) ?? keyOf(bytes);
    this.digests.set(value.data, digest);
    const key = `${value.dtype} ${value.shape.join()} ${digest}`;
    const known = this.constants.get(key);
    if (known) return known;
    const name = `#${this.constants.size}`;
    this.constants.set(key, name);
    this.initializers.push({ name, dtype: value.dtype, shape: value.shape, data: bytes });
    return name;
  }

  ints(values: readonly number[]): OnnxValue {
    const data = BigInt64Array.from(values, BigInt);
    const name = this.constant({ dtype: "i64", shape: [values.length], data });
    this.lists.set(name, values);
    return name;
  }

  scalar(value: number): OnnxValue {
    return this.constant({ dtype: "f32", shape: [], data: Float32Array.of(value) });
  }

  remember(key: string, value: OnnxValue): void {
    this.remembered.set(key, value);
  }

  recall(key: string): OnnxValue | undefined {
    return this.remembered.get(key);
  }

  /** A frozen weight under its own name. */
  weight(
    name: string,
    { dtype, shape }: Pick<Tensor, "dtype" | "shape">,
    data: Uint8Array | OnnxExternalData,
  ): OnnxValue {
    this.initializers.push({ name, dtype, shape, data });
    return name;
  }
}

function attributeOf(key: string, value: OnnxAttrs[string]): OnnxAttribute {
  if (typeof value === "string") return { kind: "text", value };
  if (typeof value === "number")
    return { kind: FLOAT_ATTRIBUTES.has(key) ? "float" : "int", value };
  return { kind: "ints", value };
}

/** The bytes themselves when few, else a digest (FNV-1a twice, with the length). */
function keyOf(bytes: Uint8Array): string {
  if (bytes.length <= 64) return bytes.join();
  let a = 0x811c9dc5;
  let b = 0x01000193;
  for (const byte of bytes) {
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul(b ^ byte, 0x85ebca6b);
  }
  return `${bytes.length} ${a >>> 0} ${b >>> 0}`;
}
