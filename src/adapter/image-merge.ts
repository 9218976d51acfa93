import { LorikeetError } from "../errors.ts";
import type { LoraCandidate } from "../passes/lora.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Adapter, peftKey } from "./adapter.ts";
import { adapterOfModules } from "./adapter-modules.ts";
import { attachImageAdapter, imageModules } from "./image-adapter.ts";
import { type MergedWeight, planMerge } from "./merge.ts";

/** What a merge needs to know of a pipeline. */
export interface ImageMergeBase {
  readonly layers: readonly LoraCandidate[];
  readonly names: readonly string[];
  readonly shapeOf: (name: string) => Shape;
}

/**
 * How each weight of a pipeline is made when `adapters` are merged into it, each times its weight.
 * @throws LorikeetError `adapter-mismatch`; `cannot-merge` for DoRA together with another adapter on the same layers
 */
export function planImageMerge(
  adapters: readonly { readonly adapter: Adapter; readonly weight?: number }[],
  base: ImageMergeBase,
): Map<string, MergedWeight> {
  const joined = new Map(
    base.names.map((name): [string, MergedWeight] => [
      name,
      { source: name, shape: base.shapeOf(name), steps: [] },
    ]),
  );
  for (const { adapter, weight = 1 } of adapters) {
    if (weight === 0) continue;
    const plan = planMerge(fitted(adapter, base.layers, weight), { ...base, head: "" });
    for (const [name, made] of plan.weights) {
      const before = joined.get(name);
      const steps = [...(before?.steps ?? []), ...made.steps];
      refuseJoinedDora(name, steps);
      joined.set(name, { ...made, steps });
    }
  }
  return joined;
}

/** `adapter` with its scales times `weight` and its tensors in the shapes of the layers. */
function fitted(adapter: Adapter, layers: readonly LoraCandidate[], weight: number): Adapter {
  const { values } = attachImageAdapter(adapter, layers, weight);
  const modules = [...imageModules(adapter)].map(([module, { parts, alpha }]) => {
    const shaped = [...parts.keys()].map((part): [string, Tensor] => [
      part,
      values.get(peftKey(module, part))!,
    ]);
    return [module, { parts: new Map(shaped), alpha: alpha! * weight }] as const;
  });
  return adapterOfModules(new Map(modules), { init: adapter.config.init });
}

/** DoRA scales what other adapters add, so that the sum depends on the order. */
function refuseJoinedDora(name: string, steps: MergedWeight["steps"]): void {
  const updates = steps.filter((step) => step.kind === "lora");
  if (updates.length < 2 || !updates.some(({ update }) => update.magnitude)) return;
  throw new LorikeetError(
    "cannot-merge",
    `Expected adapters that add up, got DoRA and another adapter for ${name}`,
    { hint: "Merge one of them, or use them beside the model: lorikeet imagine --adapter A --adapter B." }, // prettier-ignore
  );
}
