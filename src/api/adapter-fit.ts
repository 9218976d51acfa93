import type { Adapter } from "../adapter/adapter.ts";
import { adapterModules, pairOf } from "../adapter/adapter-modules.ts";
import { type FamilyTargets, resolveTargets } from "../adapter/targets.ts";
import { nearest } from "../errors.ts";
import type { LoraCandidate } from "../passes/lora.ts";
import { formatShape, sizeOf } from "../tensor/shape.ts";
import type { ImagePipeline } from "./image-pipeline.ts";
import type { Model } from "./model.ts";

/** A base as far as an adapter's fit goes. */
export interface FitBase {
  readonly name: string;
  readonly layers: readonly LoraCandidate[];
  readonly parameters: number;
  /** Absent where targets are always spelled out (image models). */
  readonly family?: FamilyTargets;
}

/** How an adapter fits a base. */
export interface AdapterFit {
  readonly base: string;
  /** Modules of the adapter that the base has, in the right sizes. */
  readonly matched: number;
  /** Modules of the adapter that the base lacks. */
  readonly unmatched: readonly { readonly module: string; readonly nearest: readonly string[] }[];
  /** Modules whose sizes are not the base's. */
  readonly misfits: readonly { readonly module: string; readonly expected: string; readonly got: string }[]; // prettier-ignore
  /** Layers of the base that the configuration's targets name, but that have no tensors in the adapter. */
  readonly missed: readonly string[];
  /** Parameters of adapter and base together, and the adapter's share in percent. */
  readonly total: number;
  readonly percent: number;
}

/** `model` as a base of adapters. */
export function modelBase({ checkpoint, layers, family }: Model): FitBase {
  return { name: checkpoint.name, layers, parameters: parametersOf(checkpoint), family };
}

/** `pipeline` as a base of adapters. */
export function pipelineBase({ checkpoint, layers }: ImagePipeline): FitBase {
  return { name: checkpoint.name, layers, parameters: parametersOf(checkpoint) };
}

/** What of `adapter` fits `base`, and what the base would miss. @throws LorikeetError `adapter-tensors` */
export function adapterFit(adapter: Adapter, base: FitBase): AdapterFit {
  const { lora } = adapterModules(adapter);
  const layers = new Map(base.layers.map((layer) => [layer.module, layer]));
  const unmatched: AdapterFit["unmatched"][number][] = [];
  const misfits: AdapterFit["misfits"][number][] = [];
  for (const [module, parts] of lora) {
    const layer = layers.get(module);
    const { a, b } = pairOf(parts);
    if (!layer) unmatched.push({ module, nearest: nearest(module, layers.keys(), 1) });
    else if (a.shape[1] !== layer.inFeatures / layer.groups || b.shape[0] !== layer.outFeatures)
      misfits.push({ module, expected: sizes(layer.inFeatures / layer.groups, layer.outFeatures), got: sizes(a.shape[1]!, b.shape[0]!) }); // prettier-ignore
  }
  const own = [...adapter.tensors.values()].reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const total = own + base.parameters;
  return {
    base: base.name,
    matched: lora.size - unmatched.length - misfits.length,
    unmatched,
    misfits,
    missed: targetsOf(adapter, base).filter((module) => !lora.has(module)),
    total,
    percent: (100 * own) / total,
  };
}

/** Layers of `base` that the configuration names; none where its targets match nothing, which `unmatched` shows. */
function targetsOf({ config }: Adapter, { layers, family }: FitBase): string[] {
  if (!family) return [];
  try {
    return [...resolveTargets(config, layers, family).keys()];
  } catch {
    return [];
  }
}

function sizes(ins: number, outs: number): string {
  return formatShape([outs, ins]);
}

function parametersOf({ weights }: Pick<Model["checkpoint"], "weights">): number {
  return weights.names.reduce((sum, name) => sum + sizeOf(weights.get(name).shape), 0);
}
