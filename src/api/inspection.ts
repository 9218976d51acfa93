import type { Adapter } from "../adapter/adapter.ts";
import { adapterModules, pairOf } from "../adapter/adapter-modules.ts";
import { siteOf, strengthOf } from "../adapter/targets.ts";
import type { WeightSource } from "../backends/backend.ts";
import type { LoraCandidate } from "../passes/lora.ts";
import { BYTES } from "../tensor/dtype.ts";
import { sizeOf } from "../tensor/shape.ts";
import { adapterFit, type AdapterFit, type FitBase } from "./adapter-fit.ts";
import type { ImagePipeline } from "./image-pipeline.ts";
import { contextOf } from "../models/config.ts";
import type { Model } from "./model.ts";

/** Layers of one kind: those whose names differ in their layer number alone. */
export interface LayerGroup {
  /** `model.layers.*.self_attn.q_proj`. */
  readonly module: string;
  readonly count: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
}

/** What is in a model. */
export interface ModelInspection {
  readonly kind: "model";
  /** Size of its files of weights on disk, and their types where they are not `dtypes` (quantized GGUF). */
  readonly fileBytes: number;
  readonly storedTypes?: readonly string[];
  readonly name: string;
  readonly family: string;
  readonly parameters: number;
  readonly bytes: number;
  readonly dtypes: readonly string[];
  readonly context: number | undefined;
  readonly vocabulary: number | undefined;
  readonly hasChatTemplate: boolean;
  /** Layers that LoRA can be attached to. */
  readonly layers: readonly LayerGroup[];
}

/** LoRA on layers of one kind. */
export interface AdapterGroup extends LayerGroup {
  readonly ranks: readonly number[];
  readonly alphas: readonly number[];
  readonly scales: readonly number[];
  readonly parameters: number;
}

/** What is in an adapter, and how it fits a base where one is given. */
export interface AdapterInspection {
  readonly kind: "adapter";
  /** Whose file it is: peft, mlx-lm, gguf, diffusers or kohya. */
  readonly format: string;
  /** Size of its files on disk. */
  readonly fileBytes: number;
  readonly baseModel: string | undefined;
  readonly r: number;
  readonly alpha: number;
  readonly variant: string;
  readonly parameters: number;
  readonly bytes: number;
  readonly dtypes: readonly string[];
  readonly layers: readonly AdapterGroup[];
  /** Weights of the base that the adapter replaces whole, and modules of which it replaces rows. */
  readonly replaces: readonly string[];
  readonly fit?: AdapterFit;
}

type Described = Omit<ModelInspection, "fileBytes" | "storedTypes">;

/** What is in `model`. No weight is read. */
export function inspectModel({ checkpoint, layers }: Model): Described {
  const { config, weights, name, chatTemplate } = checkpoint;
  const context = contextOf(config);
  const vocabulary = config["vocab_size"];
  return {
    kind: "model",
    name,
    family: String(config["model_type"]),
    ...sizesOf(weights),
    context: Number.isFinite(context) ? context : undefined,
    vocabulary: typeof vocabulary === "number" ? vocabulary : undefined,
    hasChatTemplate: chatTemplate !== undefined,
    layers: groupsOf(layers),
  };
}

/** What is in an image model. No weight is read. */
export function inspectPipeline({ checkpoint, layers }: ImagePipeline): ModelInspection {
  const sizes = sizesOf(checkpoint.weights);
  return {
    kind: "model",
    name: checkpoint.name,
    family: "Stable Diffusion",
    ...sizes,
    fileBytes: sizes.bytes,
    context: undefined,
    vocabulary: undefined,
    hasChatTemplate: false,
    layers: groupsOf(layers),
  };
}

function sizesOf(weights: WeightSource): Pick<Described, "parameters" | "bytes" | "dtypes"> {
  const all = weights.names.map((weight) => weights.get(weight));
  return {
    parameters: all.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
    bytes: all.reduce((sum, { shape, dtype }) => sum + sizeOf(shape) * BYTES[dtype], 0),
    dtypes: [...new Set(all.map(({ dtype }) => dtype))],
  };
}

function groupsOf(layers: readonly LoraCandidate[]): LayerGroup[] {
  return grouped(layers, ({ module }) => module).map(([module, group]) => ({
    module,
    count: group.length,
    inFeatures: group[0]!.inFeatures,
    outFeatures: group[0]!.outFeatures,
  }));
}

/** What is in `adapter`, and how it fits `base`. @throws LorikeetError `adapter-tensors` */
export function inspectAdapter(
  adapter: Adapter,
  base?: FitBase,
): Omit<AdapterInspection, "format" | "fileBytes"> {
  const { config, tensors } = adapter;
  const { lora, whole, rows } = adapterModules(adapter);
  const values = [...tensors.values()];
  const parameters = values.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const modules = [...lora].map(([module, parts]) => {
    const { a, b } = pairOf(parts);
    const { scale } = siteOf(config, module);
    const { alpha } = strengthOf(config, module);
    const size = [...parts.values()].reduce((sum, { shape }) => sum + sizeOf(shape), 0);
    return { module, rank: a.shape[0]!, alpha, scale, ins: a.shape[1]!, outs: b.shape[0]!, size };
  });
  return {
    kind: "adapter",
    baseModel: config.baseModel,
    r: config.r,
    alpha: config.alpha,
    variant: [config.useRslora ? "rsLoRA" : "LoRA", ...(config.useDora ? ["DoRA"] : [])].join(", "),
    parameters,
    bytes: values.reduce((sum, { data }) => sum + data.byteLength, 0),
    dtypes: [...new Set(values.map(({ dtype }) => dtype))],
    layers: grouped(modules, ({ module }) => module).map(([module, group]) => ({
      module,
      count: group.length,
      inFeatures: group[0]!.ins,
      outFeatures: group[0]!.outs,
      ranks: [...new Set(group.map(({ rank }) => rank))],
      alphas: [...new Set(group.map(({ alpha }) => alpha))],
      scales: [...new Set(group.map(({ scale }) => scale))],
      parameters: group.reduce((sum, { size }) => sum + size, 0),
    })),
    replaces: [...whole.keys(), ...rows.keys()],
    ...(base && { fit: adapterFit(adapter, base) }),
  };
}

/** `items` by name, numbers between dots made `*`, in the order of their first. */
function grouped<T>(items: readonly T[], nameOf: (item: T) => string): [string, T[]][] {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const name = nameOf(item).replaceAll(/\.\d+(?=\.|$)/g, ".*");
    groups.set(name, [...(groups.get(name) ?? []), item]);
  }
  return [...groups];
}
