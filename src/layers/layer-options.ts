import { type LoraConfig, type LoraInit, lora } from "../adapter/lora-config.ts";
import { isKnownInit } from "../adapter/lora-faults.ts";
import { LorikeetError, nearest } from "../errors.ts";
import type { LoraCandidate, LoraSite } from "../passes/lora.ts";

/** What all LoRA layers are made with; defaults are those of `lora()`. */
export interface LayerOptions {
  /** Rank of ΔW; 0: the plain layer. */
  readonly r?: number;
  readonly alpha?: number;
  /** Probability of dropping an element, in training mode. */
  readonly dropout?: number;
  /** Where dropout acts: on the adapter's input (default, as in the paper) or on its result. */
  readonly dropoutOn?: "input" | "output";
  /** The base has a bias; default true. */
  readonly bias?: boolean;
  /** `eva` and `loftq` need a whole model. */
  readonly init?: Exclude<LoraInit, "eva" | "loftq">;
  /** Scale alpha / √r instead of alpha / r. */
  readonly useRslora?: boolean;
  readonly useDora?: boolean;
  /** Selects all random numbers: first weights and dropout. */
  readonly seed?: number;
}

const KNOWN: readonly (keyof LayerOptions)[] = [
  ...([
    "r",
    "alpha",
    "dropout",
    "dropoutOn",
    "bias",
    "init",
    "useRslora",
    "useDora",
    "seed",
  ] as const),
];

/** What PEFT and loralib call them. */
const ELSEWHERE: Readonly<Record<string, keyof LayerOptions>> = {
  rank: "r",
  loraR: "r",
  loraAlpha: "alpha",
  loraDropout: "dropout",
  initLoraWeights: "init",
};

/**
 * Refuses options that a layer with `sizes`, its own options, does not have, and `without` some that others have.
 * @throws LorikeetError `layer-options` naming each, with the nearest that there is
 */
export function checkOptionNames(
  options: object,
  sizes: readonly string[],
  without: readonly (keyof LayerOptions)[] = [],
): void {
  const known = [...sizes, ...KNOWN.filter((name) => !without.includes(name))];
  const unknown = Object.keys(options).filter((name) => !known.includes(name));
  if (unknown.length === 0) return;
  const named = unknown.map((name) => {
    const camel = name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    const near = [ELSEWHERE[camel] ?? camel].find((other) => known.includes(other)) ?? nearest(name, known, 1)[0]; // prettier-ignore
    return near === undefined ? `"${name}"` : `"${name}" (did you mean "${near}"?)`;
  });
  throw new LorikeetError(
    "layer-options",
    `Expected options of the layer, got ${named.join(", ")}`,
    {
      hint: `There are ${known.join(", ")}.`,
    },
  );
}

const PLACES: ReadonlySet<string> = new Set(["input", "output"]);

/** They look at data or quantize the base. */
const MODEL_INITS: ReadonlySet<LoraInit> = new Set<LoraInit>(["eva", "loftq"]);

/** The layer's name in its graph; adapter tensors are `lora_A.weight` … */
export const MODULE = "layer";

/** What a layer is: its shapes, and its base. */
export type LayerShape = Omit<LoraCandidate, "module" | "weight" | "fanInFanOut">;

/** A layer's adapter: what the pass inserts, and how its tensors start. */
export interface LayerAdapter {
  readonly candidate: LoraCandidate;
  readonly site: LoraSite;
  readonly config: LoraConfig;
}

/**
 * The adapter that `options` describe.
 * @throws LorikeetError `layer-options` listing every option that is not possible
 */
export function layerAdapter(shape: LayerShape, options: LayerOptions): LayerAdapter {
  const { r, alpha, dropout, init, useRslora, useDora } = { ...lora(), ...options };
  const { dropoutOn = "input" } = options;
  const sizes = {
    inFeatures: shape.inFeatures,
    outFeatures: shape.outFeatures,
    kernel: shape.kernel,
  };
  const faults = [
    Number.isInteger(r) && r >= 0 ? "" : `r to be a whole number from 0, got ${r}`,
    ...valueFaults({ alpha, init, dropoutOn }),
    dropout >= 0 && dropout < 1 ? "" : `dropout to be from 0 to below 1, got ${dropout}`,
    [sizes.inFeatures, sizes.outFeatures, ...sizes.kernel].every(isSize)
      ? ""
      : `sizes to be positive whole numbers, got ${JSON.stringify(sizes)}`,
    [r, shape.inFeatures, shape.outFeatures].every((size) => size % shape.groups === 0)
      ? ""
      : `r and channels to be multiples of ${shape.groups} groups, got r ${r}, ${shape.inFeatures} and ${shape.outFeatures}`,
    useDora && shape.groups > 1 ? "one group with DoRA" : "",
  ].filter((fault) => fault !== "");
  if (faults.length > 0)
    throw new LorikeetError("layer-options", `Expected ${faults.join("; ")}`, {
      hint: "Correct the options of the layer.",
    });
  return {
    candidate: { ...shape, module: MODULE, weight: `${MODULE}.weight`, fanInFanOut: false },
    site: {
      module: MODULE,
      rank: r,
      scale: r === 0 ? 0 : alpha / (useRslora ? Math.sqrt(r) : r),
      dropout,
      dropoutOn,
      useDora,
      loraBias: false,
    },
    config: lora({ r, alpha, dropout, init, useRslora, useDora }),
  };
}

function isSize(size: number): boolean {
  return Number.isInteger(size) && size > 0;
}

function valueFaults(
  options: Required<Pick<LayerOptions, "alpha" | "dropoutOn">> & { readonly init: LoraInit },
): string[] {
  const { alpha, dropoutOn, init } = options;
  return [
    Number.isFinite(alpha) ? "" : `alpha to be a number, got ${String(alpha)}`,
    PLACES.has(dropoutOn) ? "" : `dropoutOn to be input or output, got ${dropoutOn}`,
    isKnownInit(init) && !MODEL_INITS.has(init)
      ? ""
      : `init to be one that a layer alone can have, got ${JSON.stringify(init)}`,
  ];
}
