import { LorikeetError, nearest } from "../errors.ts";
import { faultsError } from "../formats/faults.ts";
import type { LoraCandidate } from "../passes/lora.ts";
import { formatShape, type Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Adapter } from "./adapter.ts";
import { adapterModules, pairOf } from "./adapter-modules.ts";
import type { MergeStep } from "./merge-steps.ts";
import { matchesModule, siteOf } from "./targets.ts";
import { trainedRows } from "./trained-rows.ts";

/** What a merge needs to know of the base model. */
export interface MergeBase {
  readonly layers: readonly LoraCandidate[];
  /** Names and shapes of the base's weights. */
  readonly names: readonly string[];
  readonly shapeOf: (name: string) => Shape;
  /** The output head's module: `lm_head`. */
  readonly head: string;
}

/** How one weight of the merged model is made. */
export interface MergedWeight {
  /** The base's weight that it starts from. */
  readonly source: string;
  readonly shape: Shape;
  readonly steps: readonly MergeStep[];
}

/** A merged model: each of its weights, in the base's order. */
export interface MergePlan {
  readonly weights: ReadonlyMap<string, MergedWeight>;
  /** The base's head and embedding were one matrix and no longer are. */
  readonly unties: boolean;
}

/**
 * Plans the merge of `adapter` into a base. A matrix that embedding and head share is written twice when the adapter
 * changes only one use of it.
 * @throws LorikeetError `adapter-mismatch` listing all tensors that fit no weight of the base; `cannot-merge` for what
 * the base has no place for; `adapter-tensors`
 */
export function planMerge(adapter: Adapter, base: MergeBase): MergePlan {
  const shared = sharedMatrix(base);
  const headWeight = `${base.head}.weight`;
  const steps = stepsOf(adapter, base, (name) => (name === headWeight && shared) || name);
  const unties = shared !== undefined && !agree(adapter, steps, { shared, headWeight });
  const weights = new Map<string, MergedWeight>();
  for (const name of base.names) {
    // a stored copy of a shared matrix is not what the model computes with
    if (shared !== undefined && name === headWeight) continue;
    weights.set(name, merged(name, base, steps.get(name)));
  }
  if (unties) weights.set(headWeight, merged(shared, base, steps.get(headWeight)));
  return { weights, unties };
}

function merged(source: string, base: MergeBase, steps: readonly MergeStep[] = []): MergedWeight {
  const replaced = steps.find((step) => step.kind === "replace");
  return { source, steps, shape: replaced?.value.shape ?? base.shapeOf(source) };
}

/** The weight that is both embedding and head, if the model shares it. */
function sharedMatrix({ layers, head }: MergeBase): string | undefined {
  const output = layers.find(({ module }) => module === head);
  return output && output.weight !== `${head}.weight` ? output.weight : undefined;
}

/** Whether embedding and head stay one matrix. Rows of tokens are shared by PEFT, other changes only on request. */
function agree(
  { config }: Adapter,
  steps: Map<string, MergeStep[]>,
  { shared, headWeight }: { shared: string; headWeight: string },
): boolean {
  const [embedding, head] = [steps.get(shared) ?? [], steps.get(headWeight) ?? []];
  if (config.ensureWeightTying || (embedding.length === 0 && head.length === 0)) return true;
  if (head.length > 0) return false;
  const rows = embedding.filter(({ kind }) => kind === "rows");
  if (rows.length === embedding.length) return true;
  steps.set(headWeight, rows);
  return false;
}

/** Changes by name of the merged weight: replacements first, then rows, then what is added. */
function stepsOf(
  adapter: Adapter,
  base: MergeBase,
  storedName: (name: string) => string,
): Map<string, MergeStep[]> {
  const { lora, whole, rows } = adapterModules(adapter);
  const steps = new Map<string, MergeStep[]>();
  const names = new Set(base.names);
  const faults: string[] = [];
  const add = (name: string, step: MergeStep): void => {
    if (names.has(storedName(name))) steps.set(name, [...(steps.get(name) ?? []), step]);
    else faults.push(`${name}${nearby(name, names)}`);
  };
  for (const [name, value] of whole) add(name, { kind: "replace", value });
  for (const [module, value] of rows)
    add(`${module}.weight`, { kind: "rows", value, indices: trainedRows(adapter.config, module) });
  for (const [module, parts] of lora) {
    const layer = base.layers.find((candidate) => candidate.module === module);
    const fault = layer ? sizeFault(adapter, layer, parts) : `${module}${nearby(module, base.layers.map((candidate) => candidate.module))}`; // prettier-ignore
    if (fault !== undefined) faults.push(fault);
    else for (const [name, step] of loraSteps(adapter, layer!, parts, names)) add(name, step);
  }
  if (faults.length > 0)
    throw faultsError("adapter-mismatch", "an adapter of this base model; these of its tensors fit no layer", faults, "Is this the base that the adapter was trained on (base_model_name_or_path in adapter_config.json)?"); // prettier-ignore
  return steps;
}

function loraSteps(
  { config }: Adapter,
  layer: LoraCandidate,
  parts: ReadonlyMap<string, Tensor>,
  names: ReadonlySet<string>,
): [string, MergeStep][] {
  const { module, groups } = layer;
  if (groups > 1)
    throw cannotMerge(
      `${module}, a convolution with groups,`,
      "Keep the adapter beside the model.",
    );
  const { scale } = siteOf(config, module);
  const isStored = adaptsStored(config, module, parts);
  const magnitude = parts.get("lora_magnitude_vector");
  const update = {
    ...pairOf(parts),
    scale,
    isTransposed: !isStored && isTransposed(layer),
    ...(magnitude && { magnitude }),
  };
  const steps: [string, MergeStep][] = [[`${module}.weight`, { kind: "lora", update }]];
  const value = parts.get("lora_B.bias");
  if (value && !names.has(`${module}.bias`))
    throw cannotMerge(`the bias of ${module}'s adapter`, "Train without lora_bias, or keep the adapter beside the model."); // prettier-ignore
  if (value) steps.push([`${module}.bias`, { kind: "add", value, scale }]);
  return steps;
}

/** Whether the matrix is adapted as it is stored, by way of `target_parameters`. */
function adaptsStored(
  { targetParameters = [] }: Adapter["config"],
  module: string,
  parts: ReadonlyMap<string, Tensor>,
): boolean {
  return parts.has("lora_A.weight") && matchesModule(targetParameters, `${module}.weight`);
}

/** What is wrong with the sizes of a module's A and B on `layer`, if anything. */
function sizeFault(
  { config }: Adapter,
  layer: LoraCandidate,
  parts: ReadonlyMap<string, Tensor>,
): string | undefined {
  const { module, kind, inFeatures, outFeatures } = layer;
  const { a, b } = pairOf(parts);
  const isSwapped = adaptsStored(config, module, parts) && isTransposed(layer);
  const [outs, ins] = isSwapped ? [inFeatures, outFeatures] : [outFeatures, inFeatures];
  // an embedding may come with more rows, which its whole weight in the adapter then has too
  if (b.shape[0] === outs && (a.shape[1] === ins || kind === "embedding")) return undefined; // prettier-ignore
  return `${module}: A (r, ${ins}) and B (${outs}, r) wanted, got ${formatShape(a.shape)} and ${formatShape(b.shape)}`;
}

function isTransposed({ kind, fanInFanOut }: LoraCandidate): boolean {
  return kind === "embedding" || fanInFanOut;
}

function nearby(name: string, candidates: Iterable<string>): string {
  const [near] = nearest(name, candidates, 1);
  return near === undefined ? "" : ` (nearest: ${near})`;
}

function cannotMerge(what: string, hint: string): LorikeetError {
  return new LorikeetError("cannot-merge", `Expected weights that can hold the adapter, but the base has no place for ${what}`, { hint }); // prettier-ignore
}
