import type { Adapter } from "../adapter/adapter.ts";
import { attach } from "../adapter/attach.ts";
import { changesBase } from "../adapter/init/initial-part.ts";
import { plainLora } from "../adapter/plain-lora.ts";
import type { Model } from "./model.ts";

/**
 * `adapter` for the base as it is: PiSSA and OLoRA, which take a product out of the base first, become plain LoRA of twice
 * the rank; others come back as they are.
 * @throws LorikeetError `plain-lora` for LoftQ, whose base is quantized; `adapter-mismatch`
 */
export async function plainAdapter(
  adapter: Adapter,
  { checkpoint, layers, family }: Pick<Model, "checkpoint" | "layers" | "family">,
): Promise<Adapter> {
  if (!changesBase(adapter.config.init)) return adapter;
  const { sites } = attach(adapter, layers, family);
  return plainLora(adapter, checkpoint.weights, { layers, sites });
}
