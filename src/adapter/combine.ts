import { LorikeetError } from "../errors.ts";
import { convert, toFloat64 } from "../tensor/convert.ts";
import { Random } from "../tensor/random.ts";
import { sizeOf } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { type Adapter, peftKey } from "./adapter.ts";
import { adapterModules, pairOf } from "./adapter-modules.ts";
import {
  concatenate,
  mixDeltas,
  mixFactors,
  padRank,
  type WeightedFactors,
} from "./combine-factors.ts";
import type { Mix, MixOptions } from "./combine-tensors.ts";
import type { Dense } from "./linear-algebra.ts";
import { lora, type LoraConfig } from "./lora-config.ts";
import { beyondLora } from "./lora-faults.ts";
import { siteOf } from "./targets.ts";

type MixName = "linear" | "ties" | "dare_linear" | "dare_ties" | "magnitude_prune";

const mixes: Readonly<Record<MixName, Mix>> = {
  linear: { prune: "none", electsSign: false },
  ties: { prune: "magnitude", electsSign: true },
  dare_linear: { prune: "random", electsSign: false },
  dare_ties: { prune: "random", electsSign: true },
  magnitude_prune: { prune: "magnitude", electsSign: false },
};

/** Ways to combine, by PEFT's names. */
export type CombinationType = "cat" | "svd" | MixName | `${Exclude<MixName, "linear">}_svd`;

/** How adapters are combined. */
export interface CombineOptions {
  /** Factor of each adapter; 1 each by default. */
  readonly weights?: readonly number[];
  /** `svd` by default. */
  readonly combinationType?: CombinationType;
  /** Rank of the result of `svd` and `…_svd`; the largest of the adapters' by default. */
  readonly svdRank?: number;
  /** Share of values that pruning keeps, above 0 up to 1; for ties, dare and magnitude_prune. */
  readonly density?: number;
  readonly majoritySignMethod?: "total" | "frequency";
  /** Selects the random values that dare drops. */
  readonly seed?: number;
  /** Whether dare keeps element `i` of a tensor; by default drawn from `seed`. */
  readonly keeps?: (
    place: { module: string; adapter: number; side: "A" | "B" | "delta" },
    i: number,
  ) => boolean;
}

/**
 * One plain LoRA adapter of several, as PEFT's `add_weighted_adapter`; its scale is 1. `cat` is exact; `linear`, `ties`,
 * `dare_*` and `magnitude_prune` mix A and B apart from each other, which is not the weighted sum; `svd` and `…_svd` mix
 * ΔW and keep its largest singular values. With rsLoRA PEFT 0.21 scales the result √rank times too much; here it is right.
 * @throws LorikeetError `combine` naming everything that stands against it
 */
export function combine(adapters: readonly Adapter[], options: CombineOptions = {}): Adapter {
  const { combinationType: type = "svd" } = options;
  const weights = options.weights ?? adapters.map(() => 1);
  const modules = new Map<string, (WeightedFactors & { adapter: number; tensors: Pair })[]>();
  const faults = faultsOf(adapters, weights, options);
  if (faults.length === 0)
    for (const [adapter, { config, tensors }] of adapters.entries())
      for (const [module, parts] of adapterModules({ config, tensors }).lora) {
        const pair = pairOf(parts);
        const { scale } = siteOf(config, module);
        const factors = {
          a: matrixOf(pair.a),
          b: matrixOf(pair.b),
          scale,
          weight: weights[adapter]!,
        };
        const known = modules.get(module) ?? [];
        modules.set(module, [...known, { ...factors, adapter, tensors: namedPair(parts, pair) }]);
      }
  for (const [module, parts] of modules)
    if (parts.some(({ a, b }) => a.columns !== parts[0]!.a.columns || b.rows !== parts[0]!.b.rows))
      faults.push(
        `adapters of one base, got layers of ${parts.map(({ a, b }) => `${a.columns} → ${b.rows}`).join(", ")} features on ${module}`,
      );
  if (needsOneRank(type))
    for (const [module, parts] of modules)
      if (parts.some(({ a }) => a.rows !== parts[0]!.a.rows))
        faults.push(
          `adapters of one rank for ${type}, got ${parts.map(({ a }) => a.rows).join(", ")} on ${module}`,
        );
  if (faults.length > 0)
    throw new LorikeetError("combine", `Expected ${faults.join("; ")}`, {
      hint: "cat and svd take any plain LoRA adapters of one base; merge others into the base first.",
    });
  const rank = rankOf(type, [...modules.values()], options.svdRank);
  const result = new Map<string, Tensor>();
  for (const [module, parts] of modules) {
    const factors = padRank(factorsOf(type, module, { parts, rank, options }), rank);
    const { names, a, b } = parts[0]!.tensors;
    result.set(peftKey(module, names.a), tensorOf(factors.a, [rank, ...a.shape.slice(1)]));
    result.set(
      peftKey(module, names.b),
      tensorOf(factors.b, [b.shape[0]!, rank, ...b.shape.slice(2)]),
    );
  }
  const sorted = [...result].sort(([a], [b]) => (a < b ? -1 : 1));
  return { config: configOf(adapters, rank, [...modules.keys()]), tensors: new Map(sorted) };
}

interface Pair {
  readonly names: { readonly a: string; readonly b: string };
  readonly a: Tensor;
  readonly b: Tensor;
}

function factorsOf(
  type: CombinationType,
  module: string,
  {
    parts,
    rank,
    options,
  }: {
    parts: readonly (WeightedFactors & { adapter: number })[];
    rank: number;
    options: CombineOptions;
  },
): { a: Dense; b: Dense } {
  if (type === "cat") return concatenate(parts);
  const { density = 1, majoritySignMethod: majoritySign = "total", seed = 0 } = options;
  const mix = mixes[(type === "svd" ? "linear" : type.replace(/_svd$/, "")) as MixName];
  const optionsOf = (side: "A" | "B" | "delta"): MixOptions => {
    const random = parts.map(({ adapter }) =>
      new Random(seed).fork(`${module} ${side} ${adapter}`),
    );
    const drawn = (t: number): boolean => random[t]!.uniform() < density;
    const keeps = (t: number, i: number): boolean =>
      options.keeps?.({ module, adapter: parts[t]!.adapter, side }, i) ?? drawn(t);
    return { ...mix, density, majoritySign, keeps };
  };
  return type.endsWith("svd")
    ? mixDeltas(parts, rank, optionsOf("delta"))
    : mixFactors(parts, optionsOf);
}

function needsOneRank(type: CombinationType): boolean {
  return type in mixes;
}

function rankOf(
  type: CombinationType,
  modules: readonly (readonly WeightedFactors[])[],
  svdRank: number | undefined,
): number {
  if (svdRank !== undefined && type.endsWith("svd")) return svdRank;
  const ranks = modules.map((parts) =>
    parts.reduce((rank, { a }) => (type === "cat" ? rank + a.rows : Math.max(rank, a.rows)), 0),
  );
  return Math.max(...ranks);
}

function faultsOf(
  adapters: readonly Adapter[],
  weights: readonly number[],
  { combinationType: type = "svd", svdRank, density }: CombineOptions,
): string[] {
  const names = Object.keys(mixes);
  const types = ["cat", "svd", ...names, ...names.slice(1).map((name) => `${name}_svd`)];
  const hasDensity = density !== undefined && density > 0 && density <= 1;
  const hasRank = svdRank === undefined || (Number.isInteger(svdRank) && svdRank > 0);
  const wanted: [boolean, string][] = [
    [adapters.length > 0, "at least one adapter, got none"],
    [
      weights.length === adapters.length,
      `a weight for each of ${adapters.length} adapters, got ${weights.length}`,
    ],
    [weights.every(Number.isFinite), `finite weights, got ${weights.join(", ")}`],
    [types.includes(type), `a combination type of ${types.join(", ")}, got ${type}`],
    [
      hasDensity || !/ties|dare|prune/.test(type),
      `a density above 0 up to 1 for ${type}, got ${String(density)}`,
    ],
    [hasRank, `a positive whole svdRank, got ${String(svdRank)}`],
    ...adapters.map(({ config }, i): [boolean, string] => {
      const extras = extrasOf(config);
      return [extras.length === 0, `plain LoRA, got ${extras.join(", ")} in adapter ${i}`];
    }),
  ];
  return wanted.filter(([isMet]) => !isMet).map(([, fault]) => fault);
}

/** What an adapter has that cannot be added up. */
function extrasOf(config: LoraConfig): string[] {
  return [
    ...beyondLora(config),
    config.modulesToSave?.length ? "modules_to_save" : "",
    config.bias === "none" ? "" : "trained biases",
    config.trainableTokenIndices ? "trainable_token_indices" : "",
  ].filter((extra) => extra !== "");
}

function configOf(
  adapters: readonly Adapter[],
  rank: number,
  modules: readonly string[],
): LoraConfig {
  const { config } = adapters[0]!;
  const lists = adapters.map((adapter) => adapter.config.targetModules);
  const isUniform = adapters.every(
    ({ config: other }) =>
      Array.isArray(other.targetModules) &&
      JSON.stringify(selectionOf(other)) === JSON.stringify(selectionOf(config)),
  );
  const targets = isUniform ? [...new Set((lists as string[][]).flat())] : modules;
  const everywhere = {
    excludeModules: undefined,
    layersToTransform: undefined,
    layersPattern: undefined,
  };
  return lora({
    r: rank,
    alpha: rank,
    targetModules: [...targets].sort(),
    ...(isUniform ? selectionOf(config) : everywhere),
    fanInFanOut: config.fanInFanOut,
    taskType: config.taskType,
    baseModel: config.baseModel,
  });
}

function selectionOf({
  excludeModules,
  layersToTransform,
  layersPattern,
}: LoraConfig): Partial<LoraConfig> {
  return { excludeModules, layersToTransform, layersPattern };
}

function namedPair(parts: ReadonlyMap<string, Tensor>, { a, b }: { a: Tensor; b: Tensor }): Pair {
  const names = parts.has("lora_embedding_A")
    ? { a: "lora_embedding_A", b: "lora_embedding_B" }
    : { a: "lora_A.weight", b: "lora_B.weight" };
  return { names, a, b };
}

function matrixOf(value: Tensor): Dense {
  const [rows, ...rest] = value.shape as [number, ...number[]];
  return { rows, columns: sizeOf(rest), data: toFloat64(value) };
}

function tensorOf({ data }: Dense, shape: readonly number[]): Tensor {
  return convert(tensor("f64", shape, data), "f32");
}
