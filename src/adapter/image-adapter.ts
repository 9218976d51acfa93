/** @file Adapters of an image pipeline: modules are named after the model that they belong to, `unet.mid_block…`. */
import { type LorikeetError, nearest } from "../errors.ts";
import { faultsError } from "../formats/faults.ts";
import type { LoraCandidate, LoraSite } from "../passes/lora.ts";
import { formatShape, sameShape, sizeOf, type Shape } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { type Adapter, peftKey } from "./adapter.ts";
import { type AdaptedModule, adapterModules, adapterOfModules, pairOf } from "./adapter-modules.ts";
import type { Attachment } from "./attach.ts";
import { describeImageBase, type ImageBase, imageBaseOf } from "./image-base.ts";
import { partShapes } from "./parts.ts";
import { siteOf } from "./targets.ts";

/** Models of a pipeline that can be adapted. */
export const PIPELINE_MODELS = ["unet", "text_encoder", "text_encoder_2"] as const;

/** The modules of `adapter`, with the alpha of each: what formats are written from. */
export function imageModules(adapter: Adapter): Map<string, AdaptedModule> {
  const { lora: modules, whole, rows } = adapterModules(adapter);
  const others = [...whole.keys(), ...rows.keys()];
  if (others.length > 0)
    throw faultsError(
      "adapter-tensors",
      "an image adapter of LoRA tensors alone",
      others,
      "Weights that train in full have no place in LoRA files of image models.",
    );
  return new Map(
    [...modules].map(([module, parts]) => {
      const rank = pairOf(parts).a.shape[0]!;
      return [module, { parts, alpha: siteOf(adapter.config, module).scale * rank }];
    }),
  );
}

/**
 * Attaches `adapter` to a pipeline with the layers `candidates`, its scales times `weight`. Linear layers may come as
 * 1×1 convolutions and the other way round, as tools differ in that.
 * @throws LorikeetError `adapter-mismatch` listing what fits no layer, and which base the adapter seems to be for
 */
export function attachImageAdapter(
  adapter: Adapter,
  candidates: readonly LoraCandidate[],
  weight = 1,
): Attachment {
  const layers = new Map(candidates.map((candidate) => [candidate.module, candidate]));
  const sites = new Map<string, LoraSite>();
  const values = new Map<string, Tensor>();
  const faults: string[] = [];
  for (const [module, { parts, alpha }] of imageModules(adapter)) {
    const layer = layers.get(module);
    if (!layer) {
      faults.push(`${module}${near(module, layers.keys())}`);
      continue;
    }
    const rank = pairOf(parts).a.shape[0]!;
    const [useDora, loraBias] = [parts.has("lora_magnitude_vector"), parts.has("lora_B.bias")];
    const { dropout } = adapter.config;
    const site = { module, rank, scale: (weight * alpha!) / rank, dropout, useDora, loraBias };
    sites.set(module, site);
    for (const [part, shape] of Object.entries(partShapes(layer, site))) {
      const value = fitted(parts.get(part)!, shape);
      if (value) values.set(peftKey(module, part), value);
      else
        faults.push(
          `${module}.${part}: ${formatShape(parts.get(part)!.shape)} for ${formatShape(shape)}`,
        );
    }
  }
  if (faults.length > 0) throw mismatch(adapter, candidates, faults);
  return { sites, trainsWeight: () => false, values };
}

function mismatch(
  adapter: Adapter,
  candidates: readonly LoraCandidate[],
  faults: readonly string[],
): LorikeetError {
  const own = imageBaseOf(candidates.map(({ module, inFeatures }) => [module, inFeatures]));
  const theirs = baseOfAdapter(adapter);
  const base = own ? describeImageBase(own) : "this base model";
  return faultsError(
    "adapter-mismatch",
    `an adapter of ${base}; these of its tensors fit no layer`,
    faults,
    theirs === undefined || theirs === own
      ? "Is this the base that the adapter was trained on?"
      : `It looks like an adapter of ${describeImageBase(theirs)}: use it with a model of that kind.`,
  );
}

/** The kind of base that `adapter` was trained on; undefined when its modules do not tell. */
export function baseOfAdapter(adapter: Adapter): ImageBase | undefined {
  const { lora: modules } = adapterModules(adapter);
  return imageBaseOf([...modules].map(([module, parts]) => [module, pairOf(parts).a.shape[1]!]));
}

/**
 * What `adapter` has for each model of a pipeline, with the model's own names of modules: those of transformers 5, whose
 * CLIPTextModel has no `text_model.` in them.
 */
export function adaptersByModel(adapter: Adapter): Map<string, Adapter> {
  const { dropout, init, baseModel } = adapter.config;
  const modules = imageModules(adapter);
  const parts = new Map<string, Adapter>();
  for (const model of PIPELINE_MODELS) {
    const own = [...modules].filter(([module]) => module.startsWith(`${model}.`));
    if (own.length === 0) continue;
    const prefix = model === "text_encoder" ? /^text_encoder\.(text_model\.)?/ : `${model}.`;
    const named = own.map(([module, value]) => [module.replace(prefix, ""), value] as const);
    parts.set(model, adapterOfModules(new Map(named), { dropout, init, baseModel }));
  }
  return parts;
}

/** `value` with the shape of a layer, when they differ in axes of length 1 alone. */
function fitted(value: Tensor, shape: Shape): Tensor | undefined {
  if (sameShape(value.shape, shape)) return value;
  const long = (sizes: Shape): Shape => sizes.filter((size) => size !== 1);
  const fits = sizeOf(value.shape) === sizeOf(shape) && sameShape(long(value.shape), long(shape));
  return fits ? tensor(value.dtype, shape, value.data) : undefined;
}

function near(module: string, modules: Iterable<string>): string {
  const [name] = nearest(module, modules, 1);
  return name === undefined ? "" : ` (nearest: ${name})`;
}
