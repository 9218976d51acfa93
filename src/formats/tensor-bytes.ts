import { BYTES, type DType, viewAs } from "../tensor/dtype.ts";
import { type Shape, sizeOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** The little-endian bytes of a tensor's data, as a view. */
export function bytesOf({ data }: Tensor): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** A tensor over little-endian `bytes`: a view where alignment allows, else a copy. */
export function tensorFromBytes(dtype: DType, shape: Shape, bytes: Uint8Array): Tensor {
  const aligned = bytes.byteOffset % BYTES[dtype] === 0 ? bytes : new Uint8Array(bytes); // a Buffer's slice is no copy
  return { dtype, shape, data: viewAs(dtype, aligned.buffer, aligned.byteOffset, sizeOf(shape)) };
}
