import type { DType } from "../tensor/dtype.ts";

/** ONNX's TensorProto.DataType of each dtype. */
export const ONNX_TYPES: Readonly<Record<DType, number>> = {
  f32: 1,
  u8: 2,
  i8: 3,
  i16: 5,
  i32: 6,
  i64: 7,
  bool: 9,
  f16: 10,
  f64: 11,
  bf16: 16,
  f8_e4m3: 17,
  f8_e5m2: 19,
};
