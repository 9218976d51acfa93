import type { LoraCandidate, LoraSite } from "../passes/lora.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Adapter, PEFT_PREFIX } from "./adapter.ts";
import { type FamilyTargets, resolveTargets } from "./targets.ts";

/** How an adapter goes into the graph of a model, and which trainable parameters its tensors are. */
export interface Attachment {
  readonly sites: ReadonlyMap<string, LoraSite>;
  /** Whether a weight of the base is replaced by one of the adapter (modules_to_save, biases). */
  readonly trainsWeight: (name: string) => boolean;
  /** Values by name of the graph's trainable parameter. */
  readonly values: ReadonlyMap<string, Tensor>;
}

/** A model without an adapter. */
export const noAttachment: Attachment = {
  sites: new Map(),
  trainsWeight: () => false,
  values: new Map(),
};

/** Attaches `adapter` to a model with the layers `candidates`. @throws LorikeetError `lora-targets` */
export function attach(
  adapter: Adapter,
  candidates: readonly LoraCandidate[],
  family: FamilyTargets,
): Attachment {
  const values = new Map<string, Tensor>();
  for (const [key, value] of adapter.tensors)
    if (!key.includes(".original_module.")) values.set(parameterOf(key), value);
  const whole = new Set([...values.keys()].filter((name) => !name.startsWith(PEFT_PREFIX)));
  return {
    sites: resolveTargets(adapter.config, candidates, family),
    trainsWeight: (name) => whole.has(name),
    values,
  };
}

/**
 * The trainable parameter of an adapter key: LoRA's own keep the key, whole weights have their name in the checkpoint,
 * without what PEFT wraps their module in.
 */
export function parameterOf(key: string): string {
  return /\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)/.test(key)
    ? key
    : key.replace(PEFT_PREFIX, "").replace(/\.(base_layer|modules_to_save)\./, ".");
}

/** The adapter key of a trainable parameter: the inverse of `parameterOf`. */
export function keyOf(name: string): string {
  return name.startsWith(PEFT_PREFIX) ? name : PEFT_PREFIX + name;
}
