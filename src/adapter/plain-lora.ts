import type { WeightSource } from "../backends/backend.ts";
import { LorikeetError } from "../errors.ts";
import { toFloat32 } from "../tensor/convert.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import type { Adapter } from "./adapter.ts";
import { type AdaptedLayers, startOf } from "./changed-base.ts";
import { changesBase } from "./init/initial-part.ts";
import type { LoraConfig } from "./lora-config.ts";

/**
 * An adapter whose initialisation took s·B₀·A₀ out of the base (PiSSA, OLoRA), as plain LoRA of the untouched base:
 * s·(B·A − B₀·A₀) is s·[B | −B₀]·[A; A₀], of twice the rank. What PEFT saves with
 * `path_initial_model_for_weight_conversion`. Other adapters come back as they are.
 * @param base the untouched base; A₀ and B₀ are computed from it unless the adapter still knows them
 * @throws LorikeetError `plain-lora` for LoftQ, whose base is quantized and so no such difference
 */
export async function plainLora(
  adapter: Adapter,
  base: WeightSource,
  layers: AdaptedLayers,
): Promise<Adapter> {
  const { config } = adapter;
  if (!changesBase(config.init)) return adapter;
  if (config.init === "loftq")
    throw new LorikeetError(
      "plain-lora",
      "Expected an adapter that differs from the base by a product, got one of LoftQ, whose base is quantized",
      { hint: "Use it on the base that LoftQ quantizes, as Lorikeet does when it loads it." },
    );
  const start = await startOf(base, adapter, layers);
  const tensors = new Map<string, Tensor>();
  for (const [key, value] of adapter.tensors) {
    const first = start.get(key);
    if (key.endsWith(".lora_A.weight") && first) tensors.set(key, rowsOf(value, first));
    else if (key.endsWith(".lora_B.weight") && first) tensors.set(key, columnsOf(value, first));
    else tensors.set(key, value);
  }
  return { config: doubled(config), tensors };
}

/** Twice the ranks at the same scales. */
function doubled(config: LoraConfig): LoraConfig {
  const factor = config.useRslora ? Math.SQRT2 : 2;
  const times = (pattern: Readonly<Record<string, number>>, by: number): Record<string, number> =>
    Object.fromEntries(Object.entries(pattern).map(([key, value]) => [key, value * by]));
  return {
    ...config,
    init: true,
    r: 2 * config.r,
    alpha: factor * config.alpha,
    rankPattern: times(config.rankPattern, 2),
    alphaPattern: times(config.alphaPattern, factor),
  };
}

/** [A; A₀] */
function rowsOf(a: Tensor, first: Tensor): Tensor {
  const [rank, columns] = a.shape as [number, number];
  const data = new Float32Array(2 * rank * columns);
  data.set(toFloat32(a));
  data.set(toFloat32(first), rank * columns);
  return tensor("f32", [2 * rank, columns], data);
}

/** [B | −B₀] */
function columnsOf(b: Tensor, first: Tensor): Tensor {
  const [rows, rank] = b.shape as [number, number];
  const data = new Float32Array(rows * 2 * rank);
  for (let row = 0; row < rows; row++)
    for (let r = 0; r < rank; r++) {
      data[row * 2 * rank + r] = Number(b.data[row * rank + r]);
      data[row * 2 * rank + rank + r] = -Number(first.data[row * rank + r]);
    }
  return tensor("f32", [rows, 2 * rank], data);
}
