import { LorikeetError } from "../../errors.ts";
import type { LoraCandidate, LoraSite } from "../../passes/lora.ts";
import { convert, toFloat64 } from "../../tensor/convert.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import { adaptedNorms } from "../adapted-norms.ts";
import { initialTensor } from "../init.ts";
import { type Dense, product, transposed } from "../linear-algebra.ts";
import type { LoraConfig } from "../lora-config.ts";
import { factorNames, isTransposed, partShapes } from "../parts.ts";
import { loftqInit } from "./loftq.ts";
import { oloraInit } from "./olora.ts";
import { orthogonalInit } from "./orthogonal.ts";
import { pissaInit } from "./pissa.ts";

/** The tensors that an adapted layer starts with. */
export interface InitialPart {
  /** By name after the module's: `lora_A.weight` … */
  readonly tensors: Readonly<Record<string, Tensor>>;
  /** The base weight that they belong to, where the initialisation changes it: W minus what the adapter starts with. */
  readonly base?: Tensor;
}

/** A layer that gets its first adapter. */
export interface InitTarget {
  readonly candidate: LoraCandidate;
  readonly site: LoraSite;
  /** The layer's weight as stored. */
  readonly weight: Tensor;
  readonly seed: number;
  /** Full name of a tensor of the layer's adapter; with the seed it selects the random stream. */
  readonly nameOf: (part: string) => string;
}

/** A (r, in) and B (out, r) of a linear layer, and what is left of its weight (out, in) where that changes. */
export interface InitialFactors {
  readonly a: Dense;
  readonly b: Dense;
  readonly base?: Dense;
}

/** Whether `init` changes the base weights that it is used on. */
export function changesBase(init: LoraConfig["init"]): boolean {
  return typeof init === "string" && /^(pissa|olora|loftq)/.test(init);
}

/**
 * What `config` gives a layer to start with: A, B, and with DoRA the norms of the weight.
 * @throws LorikeetError `unsupported-init` when the initialisation does not exist for the layer's kind or rank
 */
export function initialPart(config: LoraConfig, target: InitTarget): InitialPart {
  const shapes = partShapes(target.candidate, target.site);
  const { base, ...factors } = byBase(config, target) ?? {};
  const tensors: Record<string, Tensor> = {};
  for (const [part, shape] of Object.entries(shapes)) {
    const given = (factors as Record<string, Dense | undefined>)[part];
    tensors[part] = given
      ? convert(tensor("f64", shape, given.data), "f32")
      : initialTensor(config, target.nameOf(part), shape, target.seed);
  }
  const weight = base ?? target.weight;
  const magnitudeShape = shapes["lora_magnitude_vector"];
  if (magnitudeShape) {
    const { a, b } = factorNames(target.candidate, target.site);
    const norms = adaptedNorms(weight, {
      a: tensors[a]!,
      b: tensors[b]!,
      scale: target.site.scale,
      isTransposed: isTransposed(target.candidate),
    });
    tensors["lora_magnitude_vector"] = convert(tensor("f64", magnitudeShape, norms), "f32");
  }
  return { tensors, ...(base && { base }) };
}

/** A, B (by name) and the changed base of the initialisations that look at the weight, or undefined for the others. */
function byBase(
  { init }: LoraConfig,
  { candidate, site, weight, seed, nameOf }: InitTarget,
): (Record<string, Dense | Tensor> & { base?: Tensor }) | undefined {
  if (typeof init !== "string" || !/^(pissa|olora|loftq|orthogonal)/.test(init)) return undefined;
  // as in PEFT, embeddings start the same way whatever the initialisation
  if (candidate.kind === "embedding" && !site.isParameter) return undefined;
  if (candidate.kind !== "linear" || site.isParameter)
    throw new LorikeetError(
      "unsupported-init",
      `Expected a linear layer for the initialisation ${init}, got ${candidate.module} (${site.isParameter ? "a bare parameter" : candidate.kind})`,
      { hint: "Leave it out of target_modules, or use the default initialisation." },
    );
  const flipped = isTransposed(candidate);
  const [rows, columns] = weight.shape as [number, number];
  const stored: Dense = { rows, columns, data: toFloat64(weight) };
  const matrix = flipped ? transposed(stored) : stored;
  const { a, b, base } = factorsOf(init, matrix, { site, seed, name: nameOf("lora_A.weight") });
  const left = base && (flipped ? transposed(base) : base);
  return {
    "lora_A.weight": a,
    "lora_B.weight": b,
    ...(left && { base: convert(tensor("f64", weight.shape, left.data), weight.dtype) }),
  };
}

function factorsOf(
  init: string,
  matrix: Dense,
  { site, seed, name }: { site: LoraSite; seed: number; name: string },
): InitialFactors {
  if (init === "orthogonal") return orthogonalInit(matrix, site, { seed, name });
  if (init === "loftq") return loftqInit(matrix, site);
  const { a, b } =
    init === "olora" ? oloraInit(matrix, site) : pissaInit(matrix, site, { init, name });
  const start = product(b, a);
  const left = matrix.data.map((value, i) => value - site.scale * start.data[i]!);
  return { a, b, base: { ...matrix, data: left } };
}
