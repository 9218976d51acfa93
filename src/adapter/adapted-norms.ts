import type { Tensor } from "../tensor/tensor.ts";
import { type LoraUpdate, mergeWeight } from "./merge-steps.ts";

/** ‖W + scale · B·A‖ for each output feature of `weight`: what DoRA's magnitude starts as. */
export function adaptedNorms(weight: Tensor, update: LoraUpdate): Float64Array {
  const { data } = mergeWeight(weight, [{ kind: "lora", update }]);
  const columns = data.length / weight.shape[0]!;
  const squares = new Float64Array(update.isTransposed ? columns : weight.shape[0]!);
  for (let i = 0; i < data.length; i++)
    squares[update.isTransposed ? i % columns : Math.floor(i / columns)]! += Number(data[i]) ** 2;
  return squares.map(Math.sqrt);
}
