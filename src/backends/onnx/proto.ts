/** @file ONNX's ModelProto as typed data and its encoding. Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto */
import { ONNX_TYPES } from "../../ir/onnx-types.ts";
import { BYTES, type DType } from "../../tensor/dtype.ts";
import { sizeOf } from "../../tensor/shape.ts";
import { ProtobufWriter } from "./protobuf.ts";

/** An attribute; whole numbers and floats are different types in ONNX. */
export type OnnxAttribute =
  | { readonly kind: "int"; readonly value: number }
  | { readonly kind: "float"; readonly value: number }
  | { readonly kind: "text"; readonly value: string }
  | { readonly kind: "ints"; readonly value: readonly number[] }
  | { readonly kind: "floats"; readonly value: readonly number[] };

/** One operator call. An empty input name is an absent optional input. */
export interface OnnxNode {
  readonly opType: string;
  readonly domain: string;
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, OnnxAttribute>>;
}

/** An axis: its size, or a name for one that differs from run to run. */
export type OnnxDim = number | string;

/** A graph input or output. */
export interface OnnxValueInfo<D extends OnnxDim = number> {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly D[];
}

/** A constant: its little-endian bytes, or a range of a file (`location` relative to the weights folder). */
export interface OnnxInitializer extends OnnxValueInfo {
  readonly data: Uint8Array | OnnxExternalData;
}

/** A range of a file that ONNX Runtime maps into memory. */
export interface OnnxExternalData {
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

/** A whole model. */
export interface OnnxModel {
  readonly name: string;
  readonly opsets: Readonly<Record<string, number>>;
  readonly nodes: readonly OnnxNode[];
  readonly initializers: readonly OnnxInitializer[];
  readonly inputs: readonly OnnxValueInfo<OnnxDim>[];
  readonly outputs: readonly OnnxValueInfo<OnnxDim>[];
}

const IR_VERSION = 10;
const ATTRIBUTE_TYPES = { float: 1, int: 2, text: 3, floats: 6, ints: 7 } as const;
const EXTERNAL = 1;
const GRAPH = 7;
const INITIALIZER = 5;

/** `model` as the bytes of an ONNX file. */
export function encodeModel(model: OnnxModel): Uint8Array {
  const writer = new ProtobufWriter();
  writeHeader(writer, model);
  writer.message(GRAPH, () => {
    writeGraph(writer, model);
  });
  return writer.finish();
}

/**
 * `model` as the bytes of an ONNX file, in parts: the same file as with the values of `weights`, which are read one
 * at a time, among its initializers.
 */
export async function* encodeModelInParts(
  model: OnnxModel,
  weights: readonly OnnxValueInfo[],
  read: (name: string) => Promise<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const body = new ProtobufWriter();
  writeGraph(body, model);
  const heads = weights.map((weight) => {
    const size = sizeOf(weight.shape) * BYTES[weight.dtype];
    const head = new ProtobufWriter();
    writeInitializerHead(head, weight);
    head.lengthOf(9, size);
    const field = new ProtobufWriter();
    field.lengthOf(INITIALIZER, head.finish().length + size);
    return { name: weight.name, head: [field.finish(), head.finish()], size };
  });
  const later = heads.reduce((sum, { head, size }) => sum + head[0]!.length + head[1]!.length + size, 0); // prettier-ignore
  const start = new ProtobufWriter();
  writeHeader(start, model);
  start.lengthOf(GRAPH, body.finish().length + later);
  yield start.finish();
  yield body.finish();
  for (const { name, head } of heads) {
    yield* head;
    yield await read(name);
  }
}

function writeHeader(writer: ProtobufWriter, model: OnnxModel): void {
  writer.int(1, IR_VERSION);
  writer.text(2, "lorikeet");
  for (const [domain, version] of Object.entries(model.opsets))
    writer.message(8, () => {
      writer.text(1, domain);
      writer.int(2, version);
    });
}

function writeGraph(writer: ProtobufWriter, model: OnnxModel): void {
  for (const node of model.nodes)
    writer.message(1, () => {
      writeNode(writer, node);
    });
  writer.text(2, model.name);
  for (const initializer of model.initializers)
    writer.message(INITIALIZER, () => {
      writeInitializer(writer, initializer);
    });
  for (const input of model.inputs) writeValueInfo(writer, 11, input);
  for (const output of model.outputs) writeValueInfo(writer, 12, output);
}

function writeNode(writer: ProtobufWriter, node: OnnxNode): void {
  for (const input of node.inputs) writer.text(1, input);
  for (const output of node.outputs) writer.text(2, output);
  writer.text(3, node.name);
  writer.text(4, node.opType);
  for (const [name, attribute] of Object.entries(node.attributes))
    writer.message(5, () => {
      writeAttribute(writer, name, attribute);
    });
  if (node.domain !== "") writer.text(7, node.domain);
}

function writeAttribute(writer: ProtobufWriter, name: string, attribute: OnnxAttribute): void {
  writer.text(1, name);
  switch (attribute.kind) {
    case "float":
      writer.float(2, attribute.value);
      break;
    case "int":
      writer.int(3, attribute.value);
      break;
    case "text":
      writer.text(4, attribute.value);
      break;
    case "floats":
      for (const value of attribute.value) writer.float(7, value);
      break;
    case "ints":
      for (const value of attribute.value) writer.int(8, value);
      break;
  }
  writer.int(20, ATTRIBUTE_TYPES[attribute.kind]);
}

function writeInitializerHead(writer: ProtobufWriter, { name, dtype, shape }: OnnxValueInfo): void {
  for (const dim of shape) writer.int(1, dim);
  writer.int(2, ONNX_TYPES[dtype]);
  writer.text(8, name);
}

function writeInitializer(writer: ProtobufWriter, initializer: OnnxInitializer): void {
  writeInitializerHead(writer, initializer);
  const { data } = initializer;
  if (data instanceof Uint8Array) {
    writer.raw(9, data);
    return;
  }
  for (const [key, value] of Object.entries(data))
    writer.message(13, () => {
      writer.text(1, key);
      writer.text(2, String(value));
    });
  writer.int(14, EXTERNAL);
}

function writeValueInfo(
  writer: ProtobufWriter,
  field: number,
  { name, dtype, shape }: OnnxValueInfo<OnnxDim>,
): void {
  writer.message(field, () => {
    writer.text(1, name);
    writer.message(2, () => {
      writer.message(1, () => {
        writer.int(1, ONNX_TYPES[dtype]);
        writer.message(2, () => {
          for (const dim of shape)
            writer.message(1, () => {
              if (typeof dim === "number") writer.int(1, dim);
              else writer.text(2, dim);
            });
        });
      });
    });
  });
}
