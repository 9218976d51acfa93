import { LorikeetError } from "../errors.ts";
import { decodeSafetensors } from "../formats/safetensors.ts";
import { serializeSafetensors } from "../formats/safetensors-write.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { LoraConfig } from "./lora-config.ts";
import { type AdapterJson, parsePeftConfig, toPeftConfig } from "./peft-config.ts";

/** What PEFT puts before module names in adapter files. */
export const PEFT_PREFIX = "base_model.model.";

/** A trained (or fresh) adapter: tensors by PEFT key, and its configuration. */
export interface Adapter {
  readonly config: LoraConfig;
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** The `adapter_config.json` that it was read from. */
  readonly source?: AdapterJson;
  /** A and B that the layers started with, by key, where the initialisation changed the base; not kept in files. */
  readonly start?: ReadonlyMap<string, Tensor>;
  /** What the file that it was read from says of itself (metadata of safetensors). */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** The PEFT key of the adapter tensor `part` of `module`. */
export function peftKey(module: string, part: string): string {
  return `${PEFT_PREFIX}${module}.${part}`;
}

/**
 * An adapter from the two files that PEFT saves.
 * @throws LorikeetError `adapter-config` when the JSON is malformed; what `parsePeftConfig` and `decodeSafetensors` throw
 */
export async function decodeAdapter(configJson: string, weights: Uint8Array): Promise<Adapter> {
  const configured = decodeAdapterConfig(configJson);
  const { tensors } = await decodeSafetensors(weights, "adapter_model.safetensors");
  return { ...configured, tensors };
}

/** What `adapter_config.json` says. @throws LorikeetError `adapter-config`, and what `parsePeftConfig` throws */
export function decodeAdapterConfig(configJson: string): {
  config: LoraConfig;
  source: AdapterJson;
} {
  try {
    const source = JSON.parse(configJson) as AdapterJson;
    return { config: parsePeftConfig(source), source };
  } catch (cause) {
    if (cause instanceof LorikeetError) throw cause;
    throw new LorikeetError(
      "adapter-config",
      "Expected adapter_config.json to be JSON; it does not parse",
      { hint: "Compare it with what PEFT wrote, or download it again.", cause },
    );
  }
}

/** The contents of `adapter_config.json` and `adapter_model.safetensors`, as PEFT 0.21 writes them. */
export function encodeAdapter({ config, tensors, source }: Adapter): {
  config: string;
  weights: Uint8Array;
} {
  return {
    config: JSON.stringify(toPeftConfig(config, source), undefined, 2),
    weights: serializeSafetensors(tensors, { format: "pt" }),
  };
}
