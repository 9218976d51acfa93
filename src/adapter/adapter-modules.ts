import { LorikeetError } from "../errors.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Adapter, peftKey, PEFT_PREFIX } from "./adapter.ts";
import { lora, type LoraConfig } from "./lora-config.ts";

/** An adapter's tensors by what they belong to. */
export interface AdapterModules {
  /** LoRA's tensors of each module, by part: `lora_A.weight`, `lora_magnitude_vector` … */
  readonly lora: ReadonlyMap<string, ReadonlyMap<string, Tensor>>;
  /** Weights and biases that replace those of the base, by name. */
  readonly whole: ReadonlyMap<string, Tensor>;
  /** Rows that replace those of a module's weight. */
  readonly rows: ReadonlyMap<string, Tensor>;
}

const LORA_PART =
  /^(.+)\.(lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)$/;
const ROWS = /^(.+)\.token_adapter\.trainable_tokens_delta$/;

/**
 * Takes the keys of an adapter file apart, with or without PEFT's prefix.
 * @throws LorikeetError `adapter-tensors` for LoRA tensors that lack their partner or do not fit each other
 */
export function adapterModules({ tensors }: Adapter): AdapterModules {
  const lora = new Map<string, Map<string, Tensor>>();
  const whole = new Map<string, Tensor>();
  const rows = new Map<string, Tensor>();
  for (const [key, value] of tensors) {
    const name = key.startsWith(PEFT_PREFIX) ? key.slice(PEFT_PREFIX.length) : key;
    const [, module, part] = LORA_PART.exec(name) ?? [];
    const rowsOf = ROWS.exec(name)?.[1];
    if (module !== undefined && part !== undefined)
      lora.set(module, (lora.get(module) ?? new Map<string, Tensor>()).set(part, value));
    else if (rowsOf !== undefined) rows.set(rowsOf, value);
    // with bias="all" PEFT also saves the module that a trained copy stands beside
    else if (!name.includes(".original_module."))
      whole.set(name.replace(/\.(base_layer|modules_to_save)\./, "."), value);
  }
  for (const [module, parts] of lora) checkPair(module, parts);
  return { lora, whole, rows };
}

/** A (r, in …) and B (out, r …) of a module, whichever way they are called. */
export function pairOf(parts: ReadonlyMap<string, Tensor>): { a: Tensor; b: Tensor } {
  const a = parts.get("lora_A.weight") ?? parts.get("lora_embedding_A");
  const b = parts.get("lora_B.weight") ?? parts.get("lora_embedding_B");
  return { a: a!, b: b! };
}

function checkPair(module: string, parts: ReadonlyMap<string, Tensor>): void {
  const { a, b } = pairOf(parts) as { a?: Tensor; b?: Tensor };
  if (a && b && (a.shape[0] === b.shape[1] || isGrouped(a.shape, b.shape))) return;
  const shapes = [...parts].map(([part, { shape }]) => `${part} [${shape.join(", ")}]`);
  throw new LorikeetError(
    "adapter-tensors",
    `Expected ${module} to have A (r, in) and B (out, r) of one rank, got ${shapes.join(", ")}`,
    { hint: "The adapter file is incomplete or was changed; save or download it again." },
  );
}

/** B of a convolution with groups sees only its group's share of the rank. */
function isGrouped([rank, , ...kernel]: Shape, [, share]: Shape): boolean {
  return kernel.length > 0 && rank! % share! === 0;
}

/** One adapted module: its tensors by part (`lora_A.weight` …), and alpha; undefined: as large as the rank. */
export interface AdaptedModule {
  readonly parts: ReadonlyMap<string, Tensor>;
  readonly alpha: number | undefined;
}

/** An adapter of `modules`; ranks and alphas that differ from most become patterns. */
export function adapterOfModules(
  modules: ReadonlyMap<string, AdaptedModule>,
  { metadata, ...options }: Partial<LoraConfig> & { metadata?: Readonly<Record<string, string>> },
): Adapter {
  const tensors = new Map<string, Tensor>();
  for (const [module, { parts }] of modules)
    for (const [part, value] of parts) tensors.set(peftKey(module, part), value);
  const ranks = new Map<string, number>();
  const alphas = new Map<string, number>();
  for (const [module, parts] of adapterModules({ config: lora(), tensors }).lora) {
    const rank = pairOf(parts).a.shape[0]!;
    ranks.set(module, rank);
    alphas.set(module, modules.get(module)!.alpha ?? rank);
  }
  const [r, alpha] = [mostCommon(ranks), mostCommon(alphas)];
  const parts = [...modules.values()].flatMap((module) => [...module.parts.keys()]);
  const config = lora({
    taskType: undefined,
    useDora: parts.includes("lora_magnitude_vector"),
    loraBias: parts.includes("lora_B.bias"),
    ...options,
    r,
    alpha,
    rankPattern: Object.fromEntries([...ranks].filter(([, rank]) => rank !== r)),
    alphaPattern: Object.fromEntries([...alphas].filter(([, value]) => value !== alpha)),
    targetModules: [...modules.keys()],
  });
  return { config, tensors, ...(metadata && { metadata }) };
}

function mostCommon(values: ReadonlyMap<string, number>): number {
  const counts = new Map<number, number>();
  for (const value of values.values()) counts.set(value, (counts.get(value) ?? 0) + 1);
  const best = Math.max(...counts.values());
  return [...counts].find(([, count]) => count === best)?.[0] ?? 1;
}
