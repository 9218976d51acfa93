import { LorikeetError, nearest } from "../errors.ts";

/**
 * How LoRA is initialised: PEFT's names, and `kaiming-normal` (A normal with negative slope 0.01, B zero; PEFT reads
 * such an adapter as `true`). https://arxiv.org/abs/2404.02948 (pissa), https://arxiv.org/abs/2406.01775 (olora)
 */
export type LoraInit =
  | true
  | false
  | "gaussian"
  | "kaiming-normal"
  | "pissa"
  | `pissa_niter_${number}`
  | "olora"
  | "orthogonal"
  | "eva"
  | "loftq";

/** Options of EVA; meanings and defaults are those of PEFT's EvaConfig. https://arxiv.org/abs/2410.07170 */
export interface EvaConfig {
  /** A layer gets at most rho · r ranks; 1: ranks stay as they are. */
  readonly rho: number;
  /** Cosine similarity of a direction to its former self from which on it counts as found. */
  readonly tau: number;
  /** Only activations of tokens that are targets count. */
  readonly useLabelMask: boolean;
  /** Divide each direction by the root of its singular value. */
  readonly whiten: boolean;
  /** Keep alpha / rank where a layer's rank changes. */
  readonly adjustScalingFactors: boolean;
}

/** PEFT's defaults of EVA. */
export const EVA_DEFAULTS: EvaConfig = {
  rho: 2,
  tau: 0.99,
  useLabelMask: true,
  whiten: false,
  adjustScalingFactors: true,
};

/** Options of LoRA; meanings and defaults are those of PEFT 0.21's LoraConfig, names in camelCase. */
export interface LoraConfig {
  /** Rank of ΔW. */
  readonly r: number;
  /** ΔW = alpha / r · B·A. */
  readonly alpha: number;
  /** Probability of dropping an element of the adapter's input. */
  readonly dropout: number;
  /** Module names (by suffix), a regular expression for whole names, "all-linear", or undefined: the family's default. */
  readonly targetModules: readonly string[] | string | undefined;
  readonly excludeModules: readonly string[] | string | undefined;
  readonly layersToTransform: readonly number[] | undefined;
  readonly layersPattern: readonly string[] | undefined;
  /** Ranks and alphas of single modules; a key is a regular expression for the end of the name. */
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
  /** Which biases of the base train. */
  readonly bias: "none" | "all" | "lora_only";
  /** B has a bias. */
  readonly loraBias: boolean;
  readonly fanInFanOut: boolean;
  /** Scale alpha / √r. https://arxiv.org/abs/2312.03732 */
  readonly useRslora: boolean;
  /** https://arxiv.org/abs/2402.09353 */
  readonly useDora: boolean;
  /** Modules (by suffix) that train in full and are saved with the adapter. */
  readonly modulesToSave: readonly string[] | undefined;
  /** Rows of embeddings that train. */
  readonly trainableTokenIndices:
    readonly number[] | Readonly<Record<string, readonly number[]>> | undefined;
  /** Bare parameters (experts) to adapt. */
  readonly targetParameters: readonly string[] | undefined;
  readonly ensureWeightTying: boolean;
  readonly init: LoraInit;
  /** Of `init: "eva"`; `EVA_DEFAULTS` where left out. */
  readonly eva?: EvaConfig;
  /** Rounds of `init: "loftq"` (4 bits); 1 where left out. */
  readonly loftqIterations?: number;
  readonly taskType: string | undefined;
  readonly baseModel: string | undefined;
}

/** Options that have no value of their own unless they are given. */
const OPTIONAL: readonly string[] = ["eva", "loftqIterations"];

/** `init` as it is written here: PEFT takes gaussian and olora in capitals, too. */
export function initOf(init: unknown): unknown {
  return typeof init === "string" && /^(gaussian|olora)$/i.test(init) ? init.toLowerCase() : init;
}

/**
 * A LoRA configuration: what is given, and PEFT's defaults for the rest.
 * @throws LorikeetError `lora-config` for an option that there is not
 */
export function lora(options: Partial<LoraConfig> = {}): LoraConfig {
  const config: LoraConfig = {
    r: 8,
    alpha: 8,
    dropout: 0,
    targetModules: undefined,
    excludeModules: undefined,
    layersToTransform: undefined,
    layersPattern: undefined,
    rankPattern: {},
    alphaPattern: {},
    bias: "none",
    loraBias: false,
    fanInFanOut: false,
    useRslora: false,
    useDora: false,
    modulesToSave: undefined,
    trainableTokenIndices: undefined,
    targetParameters: undefined,
    ensureWeightTying: false,
    init: true,
    taskType: "CAUSAL_LM",
    baseModel: undefined,
  };
  const known = [...Object.keys(config), ...OPTIONAL];
  const unknown = Object.keys(options).filter((option) => !known.includes(option));
  if (unknown.length > 0) throw unknownOptions(unknown, known);
  const given = { ...config, ...options };
  return { ...given, init: initOf(given.init) as LoraInit };
}

function unknownOptions(unknown: readonly string[], known: readonly string[]): LorikeetError {
  const list = unknown.map((option) => {
    const [near] = nearest(option, known, 1);
    return `"${option}"${near === undefined ? "" : ` (did you mean "${near}"?)`}`;
  });
  return new LorikeetError("lora-config", `Expected options of LoRA, got ${list.join(", ")}`, {
    hint: `They are: ${known.join(", ")}.`,
  });
}
