import { LorikeetError } from "../../errors.ts";
import type { LoraCandidate, LoraSite } from "../../passes/lora.ts";
import { convert, toFloat64 } from "../../tensor/convert.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import { adaptedNorms } from "../adapted-norms.ts";
import { initialTensor } from "../init.ts";
import { type Dense, transposed } from "../linear-algebra.ts";
import type { LoraConfig } from "../lora-config.ts";
import { unmergeWeight } from "../merge-steps.ts";
import { factorNames, isTransposed, partShapes } from "../parts.ts";
import { loftqInit, quantizeNf4 } from "./loftq.ts";
import { oloraInit } from "./olora.ts";
import { orthogonalInit } from "./orthogonal.ts";
import { pissaInit } from "./pissa.ts";

/** The tensors that an adapted layer starts with. */
export interface InitialPart {
  /** By name after the module's: `lora_A.weight` … */
  readonly tensors: Readonly<Record<string, Tensor>>;
  /** The base weight that they belong to, f32, where the initialisation changes it. */
  readonly base?: Tensor;
}

/** A layer that gets its first adapter. */
export interface InitTarget {
  readonly candidate: LoraCandidate;
  readonly site: LoraSite;
  /** The layer's weight as stored; may be left out where `readsWeight` says no. */
  readonly weight?: Tensor;
  readonly seed: number;
  /** Full name of a tensor of the layer's adapter; with the seed it selects the random stream. */
  readonly nameOf: (part: string) => string;
  /** A (r, in) that was found elsewhere: from activations. */
  readonly a?: Tensor;
}

/** A (r, in) and B (out, r) of a linear layer, and what is left of its weight (out, in) where that is no difference. */
export interface InitialFactors {
  readonly a: Dense;
  readonly b: Dense;
  readonly base?: Dense;
}

/** Whether `init` changes the base weights that it is used on. */
export function changesBase(init: LoraConfig["init"]): boolean {
  return typeof init === "string" && /^(pissa|olora|loftq)/.test(init);
}

/** Whether the start of the layers of `config` depends on their weights. */
export function readsWeight({ init, useDora }: LoraConfig): boolean {
  return useDora || changesBase(init);
}

/**
 * What `config` gives a layer to start with: A, B, and with DoRA the norms of the weight.
 * @throws LorikeetError `unsupported-init` when the initialisation does not exist for the layer's kind or rank
 */
export function initialPart(config: LoraConfig, target: InitTarget): InitialPart {
  const { candidate, site, nameOf, seed } = target;
  const shapes = partShapes(candidate, site);
  const { a, b } = factorNames(candidate, site);
  const start = isSpecial(config, target) ? factorsOf(config, target) : undefined;
  const given: Readonly<Record<string, Dense | undefined>> = { [a]: start?.a, [b]: start?.b };
  const tensors: Record<string, Tensor> = {};
  for (const [part, shape] of Object.entries(shapes)) {
    const found = given[part];
    tensors[part] = found
      ? convert(tensor("f64", shape, found.data), "f32")
      : initialTensor(config, nameOf(part), shape, seed);
  }
  if (target.a) tensors[a] = target.a;
  const pair = { a: tensors[a]!, b: tensors[b]! };
  const base =
    start && changesBase(config.init)
      ? ((start.base && stored(start.base, target)) ?? weightWithout(target, pair))
      : undefined;
  const magnitude = shapes["lora_magnitude_vector"];
  if (magnitude) {
    const norms = adaptedNorms(base ?? target.weight!, updateOf(target, pair));
    tensors["lora_magnitude_vector"] = convert(tensor("f64", magnitude, norms), "f32");
  }
  return { tensors, ...(base && { base }) };
}

/** W minus the product of an adapter's first A and B: the base of PiSSA and OLoRA, f32. */
export function weightWithout(
  target: Pick<InitTarget, "candidate" | "site" | "weight">,
  pair: { readonly a: Tensor; readonly b: Tensor },
): Tensor {
  return unmergeWeight(target.weight!, [{ kind: "lora", update: updateOf(target, pair) }]);
}

/** The base that LoftQ leaves, f32: after one round it is the quantized weight, whatever A and B are. */
export function loftqBase(config: LoraConfig, target: InitTarget): Tensor {
  if ((config.loftqIterations ?? 1) > 1) return initialPart(config, target).base!;
  const matrix = matrixOf(target);
  return stored({ ...matrix, data: quantizeNf4(matrix.data) }, target);
}

function updateOf(
  { candidate, site }: Pick<InitTarget, "candidate" | "site">,
  pair: { readonly a: Tensor; readonly b: Tensor },
): Parameters<typeof adaptedNorms>[1] {
  return { ...pair, scale: site.scale, isTransposed: isTransposed(candidate) };
}

/** Whether A and B of the layer are more than random numbers or zeros. */
function isSpecial({ init }: LoraConfig, { candidate, site }: InitTarget): boolean {
  if (!changesBase(init) && init !== "orthogonal") return false;
  // as in PEFT, embeddings start the same way whatever the initialisation
  if (candidate.kind === "embedding" && !site.isParameter) return false;
  if (candidate.kind === "linear" && !site.isParameter) return true;
  throw new LorikeetError(
    "unsupported-init",
    `Expected a linear layer for the initialisation ${String(init)}, got ${candidate.module} (${site.isParameter ? "a bare parameter" : candidate.kind})`,
    { hint: "Leave it out of target_modules, or use the default initialisation." },
  );
}

function factorsOf(config: LoraConfig, target: InitTarget): InitialFactors {
  const { site, seed, nameOf, candidate } = target;
  const init = config.init as string;
  const name = nameOf("lora_A.weight");
  if (init === "orthogonal") return orthogonalInit(candidate, site, { seed, name });
  const matrix = matrixOf(target);
  const most = Math.min(matrix.rows, matrix.columns);
  if (site.rank > most)
    throw new LorikeetError(
      "unsupported-init",
      `Expected a rank of at most ${most} for the initialisation ${init} on ${site.module}, got ${site.rank}`,
      { hint: "Choose a smaller r, or set rank_pattern for this layer." },
    );
  if (init === "loftq") return loftqInit(matrix, site, config.loftqIterations);
  return init === "olora" ? oloraInit(matrix, site) : pissaInit(matrix, site, { init, name });
}

/** The layer's weight as (out, in). */
function matrixOf({ candidate, weight }: InitTarget): Dense {
  const [rows, columns] = weight!.shape as [number, number];
  const matrix: Dense = { rows, columns, data: toFloat64(weight!) };
  return isTransposed(candidate) ? transposed(matrix) : matrix;
}

/** A matrix (out, in) as the layer stores its weight, f32. */
function stored(matrix: Dense, { candidate }: InitTarget): Tensor {
  const { rows, columns, data } = isTransposed(candidate) ? transposed(matrix) : matrix;
  return convert(tensor("f64", [rows, columns], data), "f32");
}
