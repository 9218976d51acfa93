import { LorikeetError, nearest } from "../errors.ts";
import type { LoraCandidate, LoraSite } from "../passes/lora.ts";
import type { LoraConfig } from "./lora-config.ts";

/** What a model's family says about targets: PEFT's default list, and the output head that "all-linear" leaves out. */
export interface FamilyTargets {
  readonly defaults: readonly string[];
  readonly head: string;
}

/**
 * The layers that `config` adapts, by PEFT's rules.
 * @throws LorikeetError `lora-targets` when nothing matches, or an entry of a list matches nothing
 */
export function resolveTargets(
  config: LoraConfig,
  candidates: readonly LoraCandidate[],
  family: FamilyTargets,
): Map<string, LoraSite> {
  const chosen = candidates.filter(
    (candidate) =>
      isTarget(config, candidate, family) &&
      !matchesModule(config.excludeModules ?? [], candidate.module) &&
      !isSaved(config, candidate.module) &&
      isInLayers(config, candidate.module),
  );
  const bare = candidates.filter(({ module }) =>
    matchesModule(config.targetParameters ?? [], `${module}.weight`),
  );
  reportMisses(config, candidates, family, chosen.length + bare.length);
  const sites = chosen.map(({ module }): [string, LoraSite] => [module, siteOf(config, module)]);
  const parameters = bare.map(({ module }): [string, LoraSite] => [
    module,
    { ...siteOf(config, module), isParameter: true },
  ]);
  return new Map([...sites, ...parameters]);
}

/** Rank and alpha of `module` under `config`. */
export function strengthOf(config: LoraConfig, module: string): { rank: number; alpha: number } {
  return {
    rank: patternValue(config.rankPattern, module) ?? config.r,
    alpha: patternValue(config.alphaPattern, module) ?? config.alpha,
  };
}

/** Rank, scale and options of `module` under `config`. */
export function siteOf(config: LoraConfig, module: string): LoraSite {
  const { rank, alpha } = strengthOf(config, module);
  return {
    module,
    rank,
    scale: alpha / (config.useRslora ? Math.sqrt(rank) : rank),
    dropout: config.dropout,
    useDora: config.useDora,
    loraBias: config.loraBias,
  };
}

/** What `config` asks of a model in vain: ranks that are too large, and names or numbers that match nothing. */
export function targetWarnings(
  config: LoraConfig,
  sites: ReadonlyMap<string, LoraSite>,
  candidates: readonly LoraCandidate[],
): { code: string; message: string }[] {
  return [...rankWarnings(sites, candidates), ...unusedWarnings(config, sites, candidates)];
}

/** ΔW has at most the rank of its weight's smaller side, so the rest of a rank is cost without effect. */
function rankWarnings(
  sites: ReadonlyMap<string, LoraSite>,
  candidates: readonly LoraCandidate[],
): { code: string; message: string }[] {
  const sides = new Map(candidates.map((candidate) => [candidate.module, smallerSide(candidate)]));
  const large = [...sites.values()].filter(({ module, rank }) => rank > sides.get(module)!);
  const first = large[0];
  if (!first) return [];
  const others = large.length > 1 ? ` and ${large.length - 1} other layers` : "";
  return [
    {
      code: "lora-rank",
      message: `rank ${first.rank} is more than ${first.module}${others} can use: the smaller side of its weight is ${sides.get(first.module)!}`,
    },
  ];
}

/** A warning for each pattern, exclusion or layer number of `config` that does nothing: PEFT leaves them unsaid. */
function unusedWarnings(
  config: LoraConfig,
  sites: ReadonlyMap<string, LoraSite>,
  candidates: readonly LoraCandidate[],
): { code: string; message: string }[] {
  const adapted = [...sites.keys()];
  const modules = candidates.map(({ module }) => module);
  const { excludeModules = [], layersToTransform = [] } = config;
  const patterns = (["rankPattern", "alphaPattern"] as const).flatMap((field) =>
    unmatched(Object.keys(config[field]), adapted, matchesPattern).map(
      (entry) => `${field === "rankPattern" ? "rank_pattern" : "alpha_pattern"} ${entry}`,
    ),
  );
  const excluded = unmatched([excludeModules].flat(), modules, (entry, module) =>
    matchesModule(typeof excludeModules === "string" ? entry : [entry], module),
  ).map((entry) => `exclude_modules ${entry}`);
  const layers = layersToTransform
    .filter((layer) => !adapted.some((module) => `.${module}.`.includes(`.${layer}.`)))
    .map((layer) => `layers_to_transform ${layer}`);
  return [...patterns, ...excluded, ...layers].map((entry) => ({
    code: "lora-unused",
    message: `${entry} matches no layer`,
  }));
}

/** The entries that match none of `modules`, quoted, with the nearest endings. */
function unmatched(
  entries: readonly string[],
  modules: readonly string[],
  matches: (entry: string, module: string) => boolean,
): string[] {
  const endings = [...new Set(modules.map((module) => module.split(".").at(-1)!))];
  return entries
    .filter((entry) => !modules.some((module) => matches(entry, module)))
    .map((entry) => `"${entry}"${suggestion(entry, endings)}`);
}

function suggestion(name: string, endings: readonly string[]): string {
  const near = nearest(name, endings);
  return near.length > 0 ? ` (did you mean ${near.map((text) => `"${text}"`).join(", ")}?)` : "";
}

function smallerSide({ inFeatures, outFeatures, kernel, groups }: LoraCandidate): number {
  const area = kernel.reduce((product, size) => product * size, 1);
  return Math.min((inFeatures / groups) * area, outFeatures);
}

/** PEFT's match of a module path: a list by equal name or suffix after a dot, a string as a regular expression. */
export function matchesModule(targets: readonly string[] | string, module: string): boolean {
  if (typeof targets === "string") return new RegExp(`^(?:${targets})$`).test(module);
  return targets.some((target) => module === target || module.endsWith(`.${target}`));
}

function isTarget(
  config: LoraConfig,
  { module, kind }: LoraCandidate,
  family: FamilyTargets,
): boolean {
  if (config.targetModules === "all-linear")
    return kind === "linear" && !`.${module}.`.includes(`.${family.head}.`);
  return matchesModule(config.targetModules ?? family.defaults, module);
}

/** Whether `module` trains in full, alone or as part of another: such modules get no adapter. */
function isSaved({ modulesToSave = [] }: LoraConfig, module: string): boolean {
  return modulesToSave.some((name) => `.${module}.`.includes(`.${name}.`));
}

/** A module that is named in full is adapted whatever its layer, as in PEFT. */
function isInLayers(
  { targetModules, layersToTransform, layersPattern }: LoraConfig,
  module: string,
): boolean {
  if (!layersToTransform) return true;
  if (typeof targetModules !== "string" && targetModules?.includes(module)) return true;
  // PEFT takes the first number; without a pattern, one that two names stand before
  const patterns =
    layersPattern && layersPattern.length > 0
      ? layersPattern.map((name) => `^(?:|.*?\\.)${name}\\.(?<index>\\d+)\\.`)
      : ["^.*?\\.[^.]*\\.(?<index>\\d+)\\."];
  const index = patterns
    .map((pattern) => new RegExp(pattern).exec(module)?.groups?.["index"])
    .find(Boolean);
  return index !== undefined && layersToTransform.includes(Number(index));
}

function patternValue(
  pattern: Readonly<Record<string, number>>,
  module: string,
): number | undefined {
  const key = Object.keys(pattern).find((regex) => matchesPattern(regex, module));
  return key === undefined ? undefined : pattern[key];
}

function matchesPattern(regex: string, module: string): boolean {
  return new RegExp(`^(?:.*\\.)?(?:${regex})$`).test(module);
}

function reportMisses(
  config: LoraConfig,
  candidates: readonly LoraCandidate[],
  family: FamilyTargets,
  count: number,
): void {
  const modules = candidates.map(({ module }) => module);
  const wanted = config.targetModules ?? family.defaults;
  const missed =
    typeof wanted === "string"
      ? []
      : wanted.filter((target) => !modules.some((module) => matchesModule([target], module)));
  const hasOthers = (config.modulesToSave ?? []).length > 0 && wanted.length === 0;
  if ((count > 0 || hasOthers) && missed.length === 0) return;
  const endings = modules.map((module) => module.split(".").at(-1)!);
  const missing = (missed.length > 0 ? missed : [wanted].flat()).map(
    (target) => `"${target}"${suggestion(target, endings)}`,
  );
  throw new LorikeetError(
    "lora-targets",
    `Expected LoRA targets to match layers of the model; nothing matches ${missing.join(", ")}`,
    {
      hint: `Layers that can be adapted end in: ${[...new Set(endings)].join(", ")}. Use "all-linear" for all of them but the output head.`,
    },
  );
}
