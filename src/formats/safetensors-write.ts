import { LorikeetError } from "../errors.ts";
import { BYTES, type DType } from "../tensor/dtype.ts";
import { formatShape, sameShape, type Shape, sizeOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { compareCodePoints } from "./code-points.ts";
import { SAFETENSORS_DTYPES } from "./safetensors.ts";
import { bytesOf } from "./tensor-bytes.ts";

/** A tensor to be written: known before its values are. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

/** Head of a file to be written, the tensors in the order of their bytes, and the size of the whole file. */
export interface SafetensorsPlan {
  readonly header: Uint8Array;
  readonly order: readonly TensorSpec[];
  readonly size: number;
}

/** safetensors puts the dtypes of stricter alignment first; its own order of equal sizes. */
const DTYPE_ORDER: readonly DType[] = [
  "i64",
  "f64",
  "f32",
  "i32",
  "bf16",
  "f16",
  "i16",
  "f8_e4m3",
  "f8_e5m2",
  "i8",
  "u8",
  "bool",
];
const spellings = new Map([...SAFETENSORS_DTYPES].map(([spelling, dtype]) => [dtype, spelling]));

/**
 * Lays a safetensors file out as Python's `save_file` does, byte for byte: by dtype, then by name, header padded
 * to 8 bytes. Metadata keeps the order of `metadata`'s keys.
 * @throws LorikeetError `duplicate-tensor` when two tensors share a name or one is called `__metadata__`
 */
export function planSafetensors(
  specs: Iterable<TensorSpec>,
  metadata?: Readonly<Record<string, string>>,
): SafetensorsPlan {
  const order = [...specs].sort(
    (a, b) =>
      DTYPE_ORDER.indexOf(a.dtype) - DTYPE_ORDER.indexOf(b.dtype) ||
      compareCodePoints(a.name, b.name),
  );
  const seen = new Set(["__metadata__"]);
  let end = 0;
  const entries = order.map(({ name, dtype, shape }) => {
    if (seen.has(name))
      throw new LorikeetError(
        "duplicate-tensor",
        `Expected each tensor of a safetensors file to have its own name, got "${name}" twice`,
      );
    seen.add(name);
    const start = end;
    end += sizeOf(shape) * BYTES[dtype];
    const entry = { dtype: spellings.get(dtype), shape, data_offsets: [start, end] };
    return `${JSON.stringify(name)}:${JSON.stringify(entry)}`;
  });
  if (metadata) entries.unshift(`"__metadata__":${JSON.stringify(metadata)}`);
  const json = new TextEncoder().encode(`{${entries.join(",")}}`);
  const length = Math.ceil(json.length / 8) * 8;
  const header = new Uint8Array(8 + length).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(json, 8);
  return { header, order, size: header.length + end };
}

/**
 * The bytes of a safetensors file in pieces: the header, then one piece a tensor, each read when it is needed, so
 * that only one tensor is in memory.
 * @throws LorikeetError `duplicate-tensor`; `tensor-mismatch` when `read` gives another dtype or shape than `specs`
 */
export async function* encodeSafetensors(
  specs: Iterable<TensorSpec>,
  read: (name: string) => Tensor | Promise<Tensor>,
  metadata?: Readonly<Record<string, string>>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { header, order } = planSafetensors(specs, metadata);
  yield header;
  for (const spec of order) {
    const tensor = await read(spec.name);
    if (tensor.dtype !== spec.dtype || !sameShape(tensor.shape, spec.shape))
      throw new LorikeetError(
        "tensor-mismatch",
        `Expected "${spec.name}" to be ${spec.dtype} ${formatShape(spec.shape)}, ` +
          `got ${tensor.dtype} ${formatShape(tensor.shape)}`,
      );
    yield bytesOf(tensor);
  }
}

/** A whole safetensors file in memory. @throws LorikeetError `duplicate-tensor` */
export function serializeSafetensors(
  tensors: ReadonlyMap<string, Tensor>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  const specs = [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  const { header, order, size } = planSafetensors(specs, metadata);
  const out = new Uint8Array(size);
  out.set(header);
  let offset = header.length;
  for (const { name } of order) {
    const bytes = bytesOf(tensors.get(name)!);
    out.set(bytes, offset);
    offset += bytes.length;
  }
  return out;
}
