import type { LoraCandidate, LoraSite } from "../passes/lora.ts";
import type { TokenRows } from "../passes/token-rows.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Adapter, PEFT_PREFIX } from "./adapter.ts";
import { type FamilyTargets, resolveTargets } from "./targets.ts";
import { trainedRows } from "./trained-rows.ts";

/** How an adapter goes into the graph of a model, and which trainable parameters its tensors are. */
export interface Attachment {
  readonly sites: ReadonlyMap<string, LoraSite>;
  /** Whether a weight of the base is replaced by one of the adapter (modules_to_save, biases). */
  readonly trainsWeight: (name: string) => boolean;
  /** Rows of embeddings and heads that the adapter replaces, by module. */
  readonly tokenRows?: (module: string) => TokenRows | undefined;
  /** Trainable parameters in place of one of two uses of a shared matrix, by the weight's name in that use. */
  readonly replacements?: ReadonlyMap<string, string>;
  /** Values by name of the graph's trainable parameter. */
  readonly values: ReadonlyMap<string, Tensor>;
}

const TOKEN_ROWS = /^(.+)\.token_adapter\.trainable_tokens_delta$/;

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
  const replacements = replacementsOf(adapter, candidates, family);
  const values = new Map<string, Tensor>();
  for (const [key, name] of parametersOf(adapter, candidates, family))
    values.set(name, adapter.tensors.get(key)!);
  const whole = new Set([...values.keys()].filter((name) => !name.startsWith(PEFT_PREFIX)));
  const tokenRows = tokenRowsOf(adapter, candidates, family);
  return {
    sites: withTies(
      resolveTargets(adapter.config, candidates, family),
      adapter,
      candidates,
      family,
    ),
    trainsWeight: (name) => whole.has(name),
    ...(tokenRows && { tokenRows }),
    ...(replacements.size > 0 && { replacements }),
    values,
  };
}

/** The trainable parameter of each key of `adapter`. */
export function parametersOf(
  adapter: Adapter,
  candidates: readonly LoraCandidate[],
  family: FamilyTargets,
): Map<string, string> {
  const replacements = replacementsOf(adapter, candidates, family);
  const names = new Map<string, string>();
  for (const key of adapter.tensors.keys()) {
    if (key.includes(".original_module.")) continue;
    const use = parameterOf(key);
    names.set(key, replacements.get(use) ?? use);
  }
  return names;
}

/** `sites` with the head that shares an adapted embedding's matrix, where its ties are to be kept. */
function withTies(
  sites: Map<string, LoraSite>,
  { config }: Adapter,
  candidates: readonly LoraCandidate[],
  { head }: FamilyTargets,
): Map<string, LoraSite> {
  const shared = candidates.find(({ module }) => module === head)?.weight;
  const tiedTo = shared?.replace(/\.weight$/, "") ?? head;
  const site = tiedTo === head ? undefined : sites.get(tiedTo);
  if (!site || !config.ensureWeightTying) return sites;
  return new Map([...sites, [head, { ...site, module: head, tiedTo }]]);
}

/** A matrix that is embedding and head: PEFT replaces one use of it, unless its ties are to be kept. */
function replacementsOf(
  { config, tensors }: Adapter,
  candidates: readonly LoraCandidate[],
  { head }: FamilyTargets,
): Map<string, string> {
  const shared = candidates.find(({ module }) => module === head)?.weight;
  const own = `${head}.weight`;
  if (shared === undefined || shared === own || config.ensureWeightTying) return new Map();
  const uses = new Set([...tensors.keys()].map(parameterOf));
  return new Map([shared, own].filter((use) => uses.has(use)).map((use) => [use, keyOf(use)]));
}

/** The rows that `adapter` trains; a head that shares the embedding's matrix shares its rows. */
function tokenRowsOf(
  { config, tensors }: Adapter,
  candidates: readonly LoraCandidate[],
  { head }: FamilyTargets,
): Attachment["tokenRows"] {
  const found = new Map<string, TokenRows>();
  for (const key of tensors.keys()) {
    const name = parameterOf(key);
    const module = TOKEN_ROWS.exec(name)?.[1];
    if (module !== undefined) found.set(module, { indices: trainedRows(config, module), name });
  }
  if (found.size === 0) return undefined;
  const shared = candidates.find(({ module }) => module === head)?.weight.replace(/\.weight$/, "");
  return (module) => found.get(module) ?? (module === head ? found.get(shared ?? "") : undefined);
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
