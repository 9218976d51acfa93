import type { Tensor } from "../../tensor/tensor.ts";

/** A LoRA file: tensors by key, and metadata. */
export interface LoraFile {
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Metadata entry of diffusers with the PEFT configuration of each model. */
export const METADATA = "lora_adapter_metadata";
