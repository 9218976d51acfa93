/** @file Image adapters as PEFT saves them: each model of a pipeline has an adapter of its own. */
import type { Tensor } from "../../tensor/tensor.ts";
import { type Adapter, PEFT_PREFIX } from "../adapter.ts";
import { PIPELINE_MODELS } from "../image-adapter.ts";
import { toPeftConfig } from "../peft-config.ts";
import { adapterFromDiffusers, metadataOf } from "./diffusers.ts";
import { METADATA } from "./lora-file.ts";

/** One adapter of a pipeline from those of its models, by name (`unet`, `text_encoder` …). */
export function adapterFromModels(models: ReadonlyMap<string, Adapter>): Adapter {
  const tensors = new Map<string, Tensor>();
  for (const [model, adapter] of models)
    for (const [key, value] of adapter.tensors)
      tensors.set(`${model}.${key.replace(PEFT_PREFIX, "")}`, value);
  const sources = [...models].map(([model, adapter]): [string, Adapter] => [
    model,
    { ...adapter, source: adapter.source ?? toPeftConfig(adapter.config) },
  ]);
  return adapterFromDiffusers({ tensors, metadata: { [METADATA]: metadataOf(new Map(sources)) } });
}

/**
 * The adapter of a pipeline that one folder of PEFT's holds: with names as in the pipeline (`unet.mid_block…`) as it
 * is, else of the model that the names are of.
 */
export function adapterFromPeft(adapter: Adapter): Adapter {
  const names = [...adapter.tensors.keys()].map((key) => key.replace(PEFT_PREFIX, ""));
  const isNamed = names.some((name) => PIPELINE_MODELS.some((model) => name.startsWith(`${model}.`))); // prettier-ignore
  if (isNamed) return adapter;
  const isText = names.some((name) => /^(text_model\.)?encoder\.layers\./.test(name));
  return adapterFromModels(new Map([[isText ? "text_encoder" : "unet", adapter]]));
}
